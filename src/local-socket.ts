import { createHash, randomBytes } from 'node:crypto'
import { openSync } from 'node:fs'
import { chmod, mkdir, readFile, readdir, rm, stat, utimes } from 'node:fs/promises'
import type { Server } from 'node:http'
import { connect } from 'node:net'
import { hostname } from 'node:os'
import { join } from 'node:path'

/** Where running servers put their sockets, below the data directory. */
const DIRECTORY = 'run'
/** The process, the machine as it was started, and chance: every container has a process 1. */
const NAME = /^\d+(?:-([0-9a-f]{6})-[0-9a-f]{6})?\.sock$/
const LONGEST_NAME = '9999999999-123456-123456.sock'
/** A socket of another machine cannot be asked from here: its server says this often that it lives. */
const ALIVE_MS = 3_600_000
/** What has said nothing for so long is dead. */
const DEAD_MS = 24 * ALIVE_MS
/** What every kernel takes as a socket's path: sizeof sun_path of the BSDs, less its NUL; Linux takes four bytes more. */
const MAX_PATH_BYTES = 103

/**
 * Lets the administrator of this machine reach a running server: a socket in the data directory that only the user who
 * runs the server can open. Sockets that dead servers left are removed; those of other containers and machines with the
 * same directory stay. @returns its path.
 */
export async function listenLocally(server: Server, dataDir: string): Promise<string> {
  const directory = join(dataDir, DIRECTORY)
  await mkdir(directory, { recursive: true, mode: 0o700 })
  await chmod(directory, 0o700)
  const short = shortName(directory)
  const machine = await machineName()
  await removeDead(short, machine)
  const name = `${process.pid}-${machine}-${randomBytes(3).toString('hex')}.sock`
  const path = join(directory, name)
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  server.once('error', reject)
  server.listen(join(short, name), resolve)
  await promise
  await chmod(path, 0o600)
  // A socket that somebody removed is no reason to fail: the command then works with --server.
  const alive = setInterval(() => void utimes(path, new Date(), new Date()).catch(() => undefined), ALIVE_MS).unref()
  server.once('close', () => clearInterval(alive))
  return path
}

/** Sockets of servers that answer, in a data directory. @throws the system's error where it may not be looked at. */
export async function findLocalSockets(dataDir: string): Promise<string[]> {
  const directory = join(dataDir, DIRECTORY)
  const names = await namesIn(directory)
  if (names.length === 0) return []
  const short = shortName(directory)
  const paths = names.filter(name => NAME.test(name)).map(name => join(short, name))
  const alive = await Promise.all(paths.map(isAnswered))
  return paths.filter((_, index) => alive[index])
}

/** Removes what nobody answers on: at once where that is certain, and where it may be another machine's after a day. */
async function removeDead(directory: string, machine: string): Promise<void> {
  for (const name of await readdir(directory)) {
    const path = join(directory, name)
    const match = NAME.exec(name)
    if (match === null || (await isAnswered(path))) continue
    if (match[1] === machine || (await ageOf(path)) > DEAD_MS) await rm(path, { force: true })
  }
}

/** Six digits for this machine since it was started; containers on it share them, as they share its sockets. */
async function machineName(): Promise<string> {
  const boot = await readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => hostname())
  return createHash('sha256').update(boot).digest('hex').slice(0, 6)
}

/** For how many milliseconds nothing was said of a file; 0 where it is gone. */
async function ageOf(path: string): Promise<number> {
  const { mtimeMs } = await stat(path).catch(() => ({ mtimeMs: Date.now() }))
  return Date.now() - mtimeMs
}

async function namesIn(directory: string): Promise<readonly string[]> {
  try {
    return await readdir(directory)
  } catch (error) {
    if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR')) return []
    throw error
  }
}

/**
 * A name of the directory by which its sockets have a path that is short enough. Where its own is too long, Linux knows
 * it by a descriptor, which stays open for as long as the process runs.
 */
function shortName(directory: string): string {
  const path = join(directory, LONGEST_NAME)
  if (Buffer.byteLength(path) <= MAX_PATH_BYTES) return directory
  if (process.platform === 'linux') return `/proc/self/fd/${openSync(directory, 'r')}`
  throw new Error(`${path} is too long for a socket: use a shorter data.dir`)
}

async function isAnswered(path: string): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>()
  const socket = connect(path, () => resolve(true))
  socket.on('error', () => resolve(false))
  try {
    return await promise
  } finally {
    socket.destroy()
  }
}
