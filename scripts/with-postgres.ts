// Runs a command with BERTH_TEST_POSTGRES set to a throw-away Postgres cluster on a free port of 127.0.0.1.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const VERSIONS = '/usr/lib/postgresql'
const START_LIMIT_SECONDS = '30'

const [command, ...args] = process.argv.slice(2)
if (command === undefined) throw new Error('usage: with-postgres.ts COMMAND [ARGUMENT …]')

const bin = newestBinaries()
const asRoot = process.getuid?.() === 0
const directory = mkdtempSync(join(tmpdir(), 'berth-postgres-'))
const data = join(directory, 'data')
if (asRoot) chownSync(directory, idOf('-u'), idOf('-g'))

try {
  const port = await freePort()
  run('initdb', '-D', data, '-U', 'postgres', '-A', 'trust', '--no-sync', '--locale=C.UTF-8', '-E', 'UTF8')
  const options = `-p ${port} -k ${directory} -c listen_addresses=127.0.0.1 -c max_connections=300`
  run('pg_ctl', '-D', data, '-l', join(directory, 'log'), '-w', '-t', START_LIMIT_SECONDS, '-o', options, 'start')
  try {
    process.exitCode = await runCommand(port)
  } finally {
    run('pg_ctl', '-D', data, '-m', 'fast', '-w', 'stop')
  }
} finally {
  rmSync(directory, { recursive: true, force: true })
}

function newestBinaries(): string {
  const versions = existsSync(VERSIONS)
    ? readdirSync(VERSIONS)
        .map(Number)
        .filter(version => version >= 14)
    : []
  if (versions.length === 0)
    throw new Error('no Postgres 14 or newer is installed (Debian: apt-get install postgresql)')
  return join(VERSIONS, String(Math.max(...versions)), 'bin')
}

function idOf(flag: '-u' | '-g'): number {
  return Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' }))
}

/** Postgres refuses to run as root, so root lends it the postgres user. */
function run(program: string, ...programArgs: string[]): void {
  const path = join(bin, program)
  const options = { cwd: '/', stdio: ['ignore', 'ignore', 'inherit'] as ['ignore', 'ignore', 'inherit'] }
  if (!asRoot) execFileSync(path, programArgs, options)
  else {
    const user = ['--reuid=postgres', `--regid=${idOf('-g')}`, '--init-groups', '--']
    execFileSync('setpriv', [...user, path, ...programArgs], options)
  }
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const { port } = probe.address() as AddressInfo
  probe.close()
  await once(probe, 'close')
  return port
}

async function runCommand(port: number): Promise<number> {
  const env = { ...process.env, BERTH_TEST_POSTGRES: `postgres://postgres@127.0.0.1:${port}/postgres` }
  const child = spawn(command ?? '', args, { stdio: 'inherit', env })
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal))
  const [code] = (await once(child, 'exit')) as [number | null]
  return code ?? 1
}
