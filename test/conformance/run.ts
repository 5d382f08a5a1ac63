// Runs the distribution specification's own conformance suite against fresh registries and judges its results: once
// against the registry as it is shipped, and once with the suite's sparse images, which the specification lets a
// registry refuse with MANIFEST_BLOB_UNKNOWN ("Push") and which ours takes where `registry.requireBlobs` is off; the same
// with logins, once with tokens used again and once with a fresh one for each request.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parse } from 'yaml'
import { createBucket, testServers } from '../s3/support.ts'
import { startCluster } from '../support/cluster.ts'
import { startServer } from '../support/server.ts'

/** Where `scripts/install-ci.sh` puts the suite, unless the caller has it elsewhere. */
const SUITE =
  process.env['BERTH_TEST_CONFORMANCE'] ?? join(import.meta.dirname, '..', '..', '.cache', 'bin', 'conformance')
const SUITE_LIMIT_MS = 180_000
/** The suite runs far more; fewer means that a part of it was switched off. */
const LEAST_CHECKS = 900
const JUDGED_PARTS = ['apis', 'data'] as const

/** One run: what the registry and the suite are told, and which one part of the suite is switched off. */
interface Mode {
  readonly name: string
  readonly env: Readonly<Record<string, string>>
  readonly suite: Readonly<Record<string, string>>
  readonly disabled: string | undefined
}

/** Where the suite's results say what became of its sparse images. */
const SPARSE = 'data.Sparse Manifests'

const PASSWORD = 'a password for one run'
const LOGIN = { BERTH_AUTH_MODE: 'token', BERTH_AUTH_ADMIN_PASSWORD: PASSWORD }
const AS_ADMIN = { OCI_USERNAME: 'admin', OCI_PASSWORD: PASSWORD }
const SPARSE_TAKEN = { BERTH_REGISTRY_REQUIRE_BLOBS: 'false' }

const MODES: readonly Mode[] = [
  { name: 'as shipped', env: {}, suite: {}, disabled: SPARSE },
  { name: 'with sparse images', env: SPARSE_TAKEN, suite: {}, disabled: undefined },
  { name: 'with logins', env: { ...LOGIN, ...SPARSE_TAKEN }, suite: AS_ADMIN, disabled: undefined },
  { name: 'with a login a request', env: LOGIN, suite: { ...AS_ADMIN, OCI_CACHE_AUTH: 'false' }, disabled: SPARSE },
]

interface Verdict {
  readonly path: string
  readonly result: string
}

async function runSuite(
  host: string,
  resultsDir: string,
  { suite, disabled }: Mode,
): Promise<{ code: number | null; output: string }> {
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('OCI_'))
  const child = spawn(SUITE, [], {
    cwd: resultsDir,
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: SUITE_LIMIT_MS,
    killSignal: 'SIGKILL',
    env: {
      ...Object.fromEntries(inherited),
      OCI_REGISTRY: host,
      OCI_TLS: 'disabled',
      OCI_REPO1: 'conformance/repo1',
      OCI_REPO2: 'conformance/repo2',
      OCI_VERSION: 'dev',
      OCI_DATA_SPARSE: String(disabled !== SPARSE),
      ...suite,
      OCI_LOG: 'warn',
      OCI_RESULTS_DIR: resultsDir,
    },
  })
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (output += text))
  await once(child, 'close')
  return { code: child.exitCode, output }
}

/** Every leaf of the results under `path`, with where it stands. */
function verdicts(value: unknown, path: string): Verdict[] {
  if (typeof value !== 'object' || value === null) return [{ path, result: String(value) }]
  return Object.entries(value).flatMap(([name, child]) => verdicts(child, `${path}.${name}`))
}

async function freshResults(path: string, startedMs: number): Promise<Record<string, unknown>> {
  const { mtimeMs } = await stat(path).catch(() => {
    throw new Error('the suite left no results.yaml')
  })
  // File systems round times; a second is far less than any run takes.
  if (mtimeMs < startedMs - 1_000) throw new Error('results.yaml is older than this run')
  const results: unknown = parse(await readFile(path, 'utf8'))
  if (typeof results !== 'object' || results === null) throw new Error('results.yaml holds no results')
  return { ...results }
}

function judge(
  results: Record<string, unknown>,
  disabled: string | undefined,
): { faults: Verdict[]; counts: Map<string, number> } {
  const counts = new Map<string, number>()
  const faults: Verdict[] = []
  for (const part of JUDGED_PARTS) {
    const found = verdicts(results[part], part)
    if (found.length < 2) throw new Error(`results.yaml says nothing under ${part}`)
    for (const verdict of found) {
      counts.set(verdict.result, (counts.get(verdict.result) ?? 0) + 1)
      const expected = verdict.path === disabled ? 'Disabled' : 'Pass'
      if (verdict.result !== expected) faults.push(verdict)
    }
  }
  return { faults, counts }
}

/** How many checks really ran: the suite counts those it skipped too, and names their number only where there are any. */
function checksRun(junit: string): number {
  const summary = /<testsuites [^>]*>/.exec(junit)?.[0] ?? ''
  const tests = / tests="(\d+)"/.exec(summary)?.[1]
  const skipped = / skipped="(\d+)"/.exec(summary)?.[1] ?? '0'
  if (tests === undefined) throw new Error('junit.xml does not say how much was run')
  return Number(tests) - Number(skipped)
}

/** What the suite is run against. */
interface Target {
  readonly host: string
  stop(): Promise<void>
}

/**
 * Runs a mode with blobs in a directory, or with them on each S3 server that BERTH_TEST_S3 names; there, and on Postgres,
 * with every request on the other of two processes.
 */
async function conformance(mode: Mode): Promise<void> {
  if (process.env['BERTH_TEST_S3'] === undefined) {
    await conformanceOn('a directory', () => startServer({ env: mode.env }), mode)
    return
  }
  for (const s3 of testServers()) {
    const bucket = await createBucket(s3)
    const env = { ...mode.env, ...bucket.settings() }
    try {
      if (!process.env['BERTH_TEST_POSTGRES']) {
        await conformanceOn(`S3 by ${s3.name}`, () => startServer({ env }), mode)
      } else await conformanceOn(`S3 by ${s3.name}, two processes in turn`, () => startTwo(env), mode)
    } finally {
      await bucket.remove()
    }
  }
}

/** Two processes behind a proxy; ends with an error where one of them was not asked as often as the other. */
async function startTwo(env: Readonly<Record<string, string>>): Promise<Target> {
  const cluster = await startCluster(env)
  return {
    host: cluster.proxy.host,
    async stop() {
      await cluster.stop()
      const [first = 0, second = 0] = cluster.proxy.counts
      if (first < LEAST_CHECKS / 4 || Math.abs(first - second) > 1) {
        throw new Error(`the processes were asked ${first} and ${second} times`)
      }
    },
  }
}

/** Runs and judges once. @throws with the reason when anything is not as it must be. */
async function conformanceOn(store: string, start: () => Promise<Target>, mode: Mode): Promise<void> {
  await access(SUITE).catch(() => {
    throw new Error(`${SUITE} is missing: run scripts/install-ci.sh`)
  })
  const resultsDir = await mkdtemp(join(tmpdir(), 'berth-conformance-'))
  const server = await start()
  const startedMs = Date.now()
  const { code, output } = await runSuite(server.host, resultsDir, mode).finally(() => server.stop())
  const results = await freshResults(join(resultsDir, 'results.yaml'), startedMs)
  const checks = checksRun(await readFile(join(resultsDir, 'junit.xml'), 'utf8'))
  const { faults, counts } = judge(results, mode.disabled)
  const others = [...counts].filter(([result]) => result !== 'Pass').map(([result, count]) => `, ${count} ${result}`)
  const index = process.env['BERTH_TEST_POSTGRES'] ? 'Postgres' : 'embedded'
  console.log(
    `conformance: ${counts.get('Pass') ?? 0} pass${others.join('')} of the suite's parts, ${checks} checks run (${index} index, ${store}, ${mode.name})`,
  )
  for (const { path, result } of faults) console.log(`  ${result}: ${path}`)
  if (code !== 0 || faults.length > 0) {
    console.log(
      output
        .split('\n')
        .filter(line => /FAIL|Error|level=(ERROR|WARN)/.test(line))
        .join('\n'),
    )
    throw new Error(`the suite found faults (exit ${code}); its reports are in ${resultsDir}`)
  }
  if (checks < LEAST_CHECKS) throw new Error(`only ${checks} checks were run, fewer than ${LEAST_CHECKS}`)
  await rm(resultsDir, { recursive: true, force: true })
}

try {
  for (const mode of MODES) await conformance(mode)
} catch (error) {
  console.error(`conformance: ${error instanceof Error ? error.message : String(error)}`)
  process.exitCode = 1
}
