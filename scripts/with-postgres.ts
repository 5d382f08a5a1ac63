// Runs a command against a throw-away Postgres cluster: with-postgres.ts [--no-fsync] COMMAND [ARGUMENT...]
import { execFileSync, spawn } from 'node:child_process'
import { chownSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { constants, tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort } from './free-port.ts'
import { postgresPrograms } from './postgres-programs.ts'

const args = process.argv.slice(2)
const isSynced = args[0] !== '--no-fsync'
const [command, ...rest] = isSynced ? args : args.slice(1)
if (command === undefined) fail('usage: with-postgres.ts [--no-fsync] COMMAND [ARGUMENT...]')
const binaries = programs()
const owner = process.getuid?.() === 0 ? postgresUser() : undefined
const directory = mkdtempSync(join(tmpdir(), 'berth-postgres-'))
if (owner !== undefined) chownSync(directory, owner.uid, owner.gid)
const data = join(directory, 'data')
// Both signals reach the command as well; it ends first and the cluster after it.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child?.kill(signal))
let child: ReturnType<typeof spawn> | undefined
process.exitCode = await runWithCluster(command, rest)

async function runWithCluster(name: string, parameters: string[]): Promise<number> {
  let isRunning = false
  try {
    run('initdb', '-D', data, '-U', 'postgres', '-A', 'trust', '--no-sync', '--locale=C.UTF-8', '-E', 'UTF8')
    const port = await freePort()
    const settings = [
      `-p ${port} -k ${directory} -c listen_addresses=127.0.0.1 -c max_connections=300`,
      isSynced ? '' : '-c fsync=off -c synchronous_commit=off -c full_page_writes=off',
    ]
    run('pg_ctl', '-D', data, '-l', join(directory, 'log'), '-w', '-t', '30', '-o', settings.join(' '), 'start')
    isRunning = true
    return await runCommand(name, parameters, `postgres://postgres@127.0.0.1:${port}/postgres`)
  } finally {
    if (isRunning) run('pg_ctl', '-D', data, '-m', 'immediate', '-w', 'stop')
    rmSync(directory, { recursive: true, force: true })
  }
}

async function runCommand(name: string, parameters: string[], url: string): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  child = spawn(name, parameters, { stdio: 'inherit', env: { ...process.env, BERTH_TEST_POSTGRES: url } })
  child.on('error', reject)
  child.on('exit', (code, signal) => resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal])))
  return await promise
}

/** Runs one of Postgres's programs as the user that owns the cluster: they refuse to run as root. */
function run(program: string, ...parameters: string[]): void {
  const path = join(binaries, program)
  const options = { cwd: directory, stdio: ['ignore', 'ignore', 'inherit'] } satisfies object
  if (owner === undefined) {
    execFileSync(path, parameters, options as Parameters<typeof execFileSync>[2])
    return
  }
  const identity = [`--reuid=${owner.uid}`, `--regid=${owner.gid}`, '--init-groups', '--']
  execFileSync('setpriv', [...identity, path, ...parameters], options as Parameters<typeof execFileSync>[2])
}

function programs(): string {
  try {
    return postgresPrograms()
  } catch (error) {
    fail(error instanceof Error ? error.message : String(error))
  }
}

function postgresUser(): { readonly uid: number; readonly gid: number } {
  const entry = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map(line => line.split(':'))
    .find(([name]) => name === 'postgres')
  if (entry === undefined) fail('Postgres does not run as root, and there is no user "postgres" to run it as')
  return { uid: Number(entry[2]), gid: Number(entry[3]) }
}

function fail(message: string): never {
  console.error(message)
  process.exit(2)
}
