import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import pg from 'pg'

/** A registry that runs as a process of its own. */
export interface TestServer {
  /** `http://127.0.0.1:PORT` */
  readonly url: string
  /** `127.0.0.1:PORT` */
  readonly host: string
  readonly dataDir: string
  readonly process: ChildProcess
  /** Every line the server has logged so far, parsed; lines that are no JSON are left out. */
  readonly log: readonly LogLine[]
  /** Stops in order, then removes the data and the database. @throws when the server does not stop, or not cleanly. */
  stop(): Promise<void>
  /** SIGKILL, without waiting; `stop` still has to be called to remove the data. */
  kill(): void
}

export type LogLine = Readonly<Record<string, unknown>>

export interface TestServerOptions {
  /** Added to, and stronger than, the settings every test server has. */
  readonly env?: Readonly<Record<string, string>>
  /** A data directory that outlives the server; without it a fresh one is made and removed at the end. */
  readonly dataDir?: string
  /** A database that outlives the server; without it, and with BERTH_TEST_POSTGRES set, a fresh one is made. */
  readonly databaseUrl?: string
}

const REPOSITORY_ROOT = join(import.meta.dirname, '..', '..')
const START_LIMIT_MS = 180_000
const STOP_LIMIT_MS = 60_000
const KEPT_STDERR_CHARS = 8_000

/** Starts a registry on free ports of 127.0.0.1. @throws with the server's own words when it does not come up. */
export async function startServer(options: TestServerOptions = {}): Promise<TestServer> {
  const workDir = await mkdtemp(join(tmpdir(), 'berth-test-'))
  const dataDir = options.dataDir ?? join(workDir, 'data')
  const database = options.databaseUrl === undefined ? await createDatabase() : undefined
  const databaseUrl = options.databaseUrl ?? database?.url
  const cleanUp = async (): Promise<void> => {
    await database?.drop()
    await rm(workDir, { recursive: true, force: true })
  }
  const child = spawn(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', join(REPOSITORY_ROOT, 'src', 'cli.ts'), 'serve'],
    {
      cwd: workDir,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        ...withoutSettings(process.env),
        BERTH_HTTP_PORT: '0',
        BERTH_METRICS_PORT: '0',
        BERTH_LOG_FORMAT: 'json',
        BERTH_DATA_DIR: dataDir,
        ...(databaseUrl === undefined ? {} : { BERTH_DATABASE_URL: databaseUrl }),
        ...options.env,
      },
    },
  )
  const log: LogLine[] = []
  try {
    const url = await listening(child, log)
    return {
      url,
      host: new URL(url).host,
      dataDir,
      process: child,
      log,
      async stop() {
        try {
          await stopProcess(child)
        } finally {
          await cleanUp()
        }
      },
      kill: () => void child.kill('SIGKILL'),
    }
  } catch (error) {
    child.kill('SIGKILL')
    await cleanUp()
    throw error
  }
}

/** The caller's own settings must not leak into a server under test. */
function withoutSettings(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(env).filter(([name]) => !name.startsWith('BERTH_') && name !== 'NODE_TEST_CONTEXT'),
  )
}

/** Collects the log and resolves with the address once the server says it listens. */
async function listening(child: ChildProcess, log: LogLine[]): Promise<string> {
  const { stdout, stderr } = child
  if (stdout === null || stderr === null) throw new Error('the server was started without pipes')
  const started = Promise.withResolvers<string>()
  let complaint = ''
  const fail = (reason: string): void => {
    const said = log.map(line => JSON.stringify(line)).join('\n')
    started.reject(new Error(`${reason}\n${said}\n${complaint}`))
  }
  stderr.setEncoding('utf8')
  stderr.on('data', (text: string) => {
    complaint = (complaint + text).slice(-KEPT_STDERR_CHARS)
  })
  createInterface({ input: stdout }).on('line', text => {
    const line = parseLine(text)
    if (line === undefined) return
    log.push(line)
    if (line['msg'] === 'listening' && typeof line['url'] === 'string') started.resolve(line['url'])
  })
  child.once('error', error => fail(`the server could not be started: ${error.message}`))
  child.once('close', (code, signal) => fail(`the server ended before it listened (${code ?? signal})`))
  const limit = setTimeout(() => fail(`the server did not listen within ${START_LIMIT_MS} ms`), START_LIMIT_MS)
  try {
    return await started.promise
  } finally {
    clearTimeout(limit)
  }
}

function parseLine(text: string): LogLine | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? { ...value } : undefined
  } catch {
    return undefined
  }
}

async function stopProcess(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) {
    const ended = once(child, 'close')
    child.kill('SIGTERM')
    const limit = setTimeout(() => child.kill('SIGKILL'), STOP_LIMIT_MS)
    await ended
    clearTimeout(limit)
    if (child.signalCode === 'SIGKILL') throw new Error(`the server did not stop within ${STOP_LIMIT_MS} ms`)
  }
  if (child.exitCode !== null && child.exitCode !== 0) throw new Error(`the server ended with ${child.exitCode}`)
}

/** A database of its own for one server. */
export interface TestDatabase {
  readonly url: string
  drop(): Promise<void>
}

/** Creates a fresh database beside the one BERTH_TEST_POSTGRES names; without that variable, none. */
export async function createDatabase(): Promise<TestDatabase | undefined> {
  const adminUrl = process.env['BERTH_TEST_POSTGRES']
  if (adminUrl === undefined || adminUrl === '') return undefined
  const name = `berth_test_${randomBytes(8).toString('hex')}`
  await asAdmin(adminUrl, `create database ${name}`)
  const url = new URL(adminUrl)
  url.pathname = `/${name}`
  return { url: url.href, drop: () => asAdmin(adminUrl, `drop database if exists ${name} with (force)`) }
}

async function asAdmin(url: string, statement: string): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    await client.query(statement)
  } finally {
    await client.end()
  }
}
