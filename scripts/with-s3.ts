// Runs a command beside throw-away S3 servers: with-s3.ts [--only NAME] COMMAND [ARGUMENT...]
// BERTH_TEST_S3 tells the command where they are, as JSON: {"ceph": {"endpoint", "accessKeyId", "secretAccessKey"}, …}.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { constants, tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { startCeph } from './ceph.ts'
import type { S3Server, Spawn } from './s3-server.ts'
import { startVersitygw } from './versitygw.ts'

const STARTERS = { ceph: startCeph, versitygw: startVersitygw }
const STOP_LIMIT_MS = 5_000

const args = process.argv.slice(2)
const only = args[0] === '--only' ? args[1] : undefined
const [command, ...rest] = only === undefined ? args : args.slice(2)
const names = Object.keys(STARTERS).filter(name => only === undefined || name === only) as (keyof typeof STARTERS)[]
if (command === undefined || names.length === 0) {
  console.error(`usage: with-s3.ts [--only ${Object.keys(STARTERS).join('|')}] COMMAND [ARGUMENT...]`)
  process.exit(2)
}
const directory = mkdtempSync(join(tmpdir(), 'berth-s3-'))
const running: ChildProcess[] = []
let child: ChildProcess | undefined
// The servers end after the command does.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child?.kill(signal))
try {
  const servers = await Promise.all(names.map(async name => [name, await start(name)] as const))
  child = spawn(command, rest, {
    stdio: 'inherit',
    env: { ...process.env, BERTH_TEST_S3: JSON.stringify(Object.fromEntries(servers)) },
  })
  const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null]
  process.exitCode = code ?? 128 + (signal === null ? 0 : constants.signals[signal])
} finally {
  for (const server of running.toReversed()) await stop(server)
  rmSync(directory, { recursive: true, force: true })
}

async function start(name: keyof typeof STARTERS): Promise<S3Server> {
  const home = join(directory, name)
  mkdirSync(home)
  const logs: string[] = []
  const spawnServer: Spawn = (program, parameters, env = {}) => {
    const log = join(home, `${basename(program)}.out`)
    const output = openSync(log, 'w')
    logs.push(log)
    const server = spawn(program, parameters, { stdio: ['ignore', output, output], env: { ...process.env, ...env } })
    server.on('error', error => console.error(`${program}: ${error.message}`))
    running.push(server)
    return { isRunning: () => server.exitCode === null && server.signalCode === null }
  }
  try {
    return await STARTERS[name](home, spawnServer)
  } catch (error) {
    for (const log of logs) console.error(`${log}:\n${readFileSync(log, 'utf8').slice(-4_000)}`)
    throw error
  }
}

async function stop(server: ChildProcess): Promise<void> {
  if (server.pid === undefined || server.exitCode !== null || server.signalCode !== null) return
  const ended = once(server, 'exit')
  // All they keep is thrown away.
  server.kill('SIGKILL')
  await Promise.race([ended, new Promise(resolve => setTimeout(resolve, STOP_LIMIT_MS).unref())])
}
