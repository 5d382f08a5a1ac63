import { type ChildProcess, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { accessSync, closeSync, constants, mkdirSync, openSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { delimiter, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { withDescendants } from './process.ts'

/** A registry that is being measured. */
export interface Server {
  readonly name: string
  readonly url: string
  /** The registry's own process. */
  readonly pid: number
  readonly dataDir: string
  /** What requests show as `Authorization`, where logins are on. */
  readonly authorization?: string
  /** Its index, where that is a database of its own on Postgres. */
  readonly databaseUrl?: string
  /** Every process whose CPU counts: with Postgres also the server and its backends. */
  pids(): number[]
  stop(): Promise<void>
}

/** How to start a registry in an empty directory. */
export interface Contender {
  readonly name: string
  start(directory: string): Promise<Server>
}

const ROOT = join(import.meta.dirname, '..')
const PEERS = join(ROOT, '.cache', 'bin', 'peers')
const START_LIMIT_MS = 60_000
const STOP_LIMIT_MS = 30_000

type Settings = Readonly<Record<string, string>>

/** Berth with its embedded index, and on Postgres where BERTH_TEST_POSTGRES names a server; with settings added. */
export function berths(settings: Settings = {}): Contender[] {
  const admin = process.env['BERTH_TEST_POSTGRES']
  const embedded: Contender = {
    name: 'berth, embedded',
    start: directory => startBerth('berth, embedded', directory, settings),
  }
  if (admin === undefined) return [embedded]
  return [embedded, { name: 'berth, postgres', start: directory => startOnPostgres(admin, directory, settings) }]
}

/** The peers that are installed on this machine: see bench/install-peers.sh. */
export function peers(): Contender[] {
  return [
    ...installed('distribution 3.1', 'registry', distributionConfig),
    ...installed('docker-registry', 'docker-registry', distributionConfig),
    ...installed('zot', 'zot', zotConfig),
  ]
}

/** A bucket and who may use it. */
export interface Bucket {
  readonly endpoint: string
  readonly bucket: string
  readonly accessKeyId: string
  readonly secretAccessKey: string
}

/** Distribution with its blobs in a bucket and without redirects, where it is installed. */
export function distributionOnS3(place: Bucket): Contender[] {
  return installed('distribution 3.1', 'registry', (_directory, port) => distributionOn(s3Driver(place), port))
}

function installed(name: string, program: string, configure: Configure): Contender[] {
  const path = [PEERS, ...(process.env['PATH'] ?? '').split(delimiter)]
    .map(folder => join(folder, program))
    .find(isExecutable)
  return path === undefined ? [] : [{ name, start: directory => startPeer(name, path, directory, configure) }]
}

type Configure = (directory: string, port: number) => { readonly file: string; readonly text: string }

function distributionConfig(directory: string, port: number): ReturnType<Configure> {
  return distributionOn(`filesystem: { rootdirectory: ${join(directory, 'data')} }`, port)
}

function s3Driver({ endpoint, bucket, accessKeyId, secretAccessKey }: Bucket): string {
  const { host } = new URL(endpoint)
  const access = `accesskey: ${accessKeyId}, secretkey: ${secretAccessKey}, region: us-east-1`
  const place = `regionendpoint: "http://${host}", bucket: ${bucket}, secure: false, forcepathstyle: true`
  return `s3: { ${access}, ${place} }, redirect: { disable: true }`
}

/** The access log is on, as it is in Berth. Both versions read the same settings. */
function distributionOn(driver: string, port: number): ReturnType<Configure> {
  return {
    file: 'config.yml',
    text: `version: 0.1
log: { level: info, accesslog: { disabled: false } }
storage: { ${driver}, delete: { enabled: true } }
http: { addr: "127.0.0.1:${port}" }
`,
  }
}

/** `commit`: content is synced before the answer, as it is in Berth. */
function zotConfig(directory: string, port: number): ReturnType<Configure> {
  const settings = {
    distSpecVersion: '1.1.1',
    storage: { rootDirectory: join(directory, 'data'), commit: true, gc: false, dedupe: true },
    http: { address: '127.0.0.1', port: String(port) },
    log: { level: 'info' },
  }
  return { file: 'config.json', text: JSON.stringify(settings) }
}

async function startPeer(name: string, program: string, directory: string, configure: Configure): Promise<Server> {
  const port = await freePort()
  const { file, text } = configure(directory, port)
  const config = join(directory, file)
  writeFileSync(config, text)
  // A bundle of authorities that the environment names keeps the older S3 driver from starting.
  const { AWS_CA_BUNDLE: _bundle, ...env } = process.env
  return await run(name, program, ['serve', config], { directory, port, env })
}

async function startBerth(name: string, directory: string, settings: Settings): Promise<Server> {
  const port = await freePort()
  const own = Object.entries(process.env).filter(([key]) => !key.startsWith('BERTH_'))
  const env = {
    ...Object.fromEntries(own),
    BERTH_HTTP_PORT: String(port),
    BERTH_METRICS_PORT: '0',
    BERTH_LOG_FORMAT: 'json',
    BERTH_DATA_DIR: join(directory, 'data'),
    ...settings,
  }
  const program = [...process.execArgv, join(ROOT, 'src', 'cli.ts'), 'serve']
  return await run(name, process.execPath, program, { directory, port, env })
}

async function startOnPostgres(admin: string, directory: string, settings: Settings): Promise<Server> {
  const database = `berth_bench_${randomUUID().replaceAll('-', '')}`
  const url = new URL(admin)
  url.pathname = `/${database}`
  await asAdmin(admin, client => client.query(`create database ${database}`))
  const server = await startBerth('berth, postgres', directory, { ...settings, BERTH_DATABASE_URL: url.href })
  const postmaster = await postmasterOf(admin)
  return {
    ...server,
    databaseUrl: url.href,
    pids: () => [...server.pids(), ...withDescendants(postmaster)],
    async stop() {
      await server.stop()
      await asAdmin(admin, client => client.query(`drop database if exists ${database} with (force)`))
    },
  }
}

/** Postgres's first process: the one its data directory names. */
async function postmasterOf(admin: string): Promise<number> {
  return await asAdmin(admin, async client => {
    const { rows } = await client.query<{ pid: string }>(
      "select split_part(pg_read_file('postmaster.pid'), E'\\n', 1) as pid",
    )
    return Number(rows[0]?.pid)
  })
}

async function asAdmin<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client(url)
  await client.connect()
  try {
    return await work(client)
  } finally {
    await client.end()
  }
}

async function run(
  name: string,
  program: string,
  args: readonly string[],
  options: { readonly directory: string; readonly port: number; readonly env: NodeJS.ProcessEnv },
): Promise<Server> {
  const dataDir = join(options.directory, 'data')
  mkdirSync(dataDir, { recursive: true })
  const logPath = join(options.directory, 'log')
  const log = openSync(logPath, 'a')
  const child = spawn(program, args, { stdio: ['ignore', log, log], env: options.env })
  closeSync(log)
  const url = `http://127.0.0.1:${options.port}`
  await answering(child, url, logPath)
  const { pid } = child
  if (pid === undefined) throw new Error(`${name} could not be started`)
  return { name, url, pid, dataDir, pids: () => withDescendants(pid), stop: () => stopped(child, name) }
}

async function answering(child: ChildProcess, url: string, log: string): Promise<void> {
  const limit = AbortSignal.timeout(START_LIMIT_MS)
  for (;;) {
    if (child.exitCode !== null || limit.aborted) {
      child.kill('SIGKILL')
      throw new Error(`${child.spawnfile} does not answer at ${url}; see ${log}`)
    }
    const answer = await fetch(`${url}/v2/`).catch(() => undefined)
    await answer?.arrayBuffer()
    // Where logins are on, that is its answer to whoever shows nothing.
    if (answer?.status === 200 || answer?.status === 401) return
    await delay(50)
  }
}

async function stopped(child: ChildProcess, name: string): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) throw new Error(`${name} ended before it was stopped`)
  const ended = once(child, 'exit')
  child.kill('SIGTERM')
  const limit = setTimeout(() => child.kill('SIGKILL'), STOP_LIMIT_MS)
  await ended
  clearTimeout(limit)
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

async function freePort(): Promise<number> {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (typeof address !== 'object' || address === null) throw new Error('no free port')
  return address.port
}
