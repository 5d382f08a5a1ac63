import { openSync } from 'node:fs'
import { chmod, mkdir, readdir, rm } from 'node:fs/promises'
import type { Server } from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'

/** Where running servers put their sockets, below the data directory. */
const DIRECTORY = 'run'
const NAME = /^(\d+)\.sock$/
const LONGEST_NAME = '9999999999.sock'
/** What every kernel takes as a socket's path: sizeof sun_path of the BSDs, less its NUL; Linux takes four bytes more. */
const MAX_PATH_BYTES = 103

/**
 * Lets the administrator of this machine reach a running server: a socket in the data directory that only the user who
 * runs the server can open. Sockets that dead servers left are removed. @returns its path.
 */
export async function listenLocally(server: Server, dataDir: string): Promise<string> {
  const directory = join(dataDir, DIRECTORY)
  await mkdir(directory, { recursive: true, mode: 0o700 })
  await chmod(directory, 0o700)
  const short = shortName(directory)
  await removeDead(short)
  const path = join(directory, `${process.pid}.sock`)
  await rm(path, { force: true })
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  server.once('error', reject)
  server.listen(join(short, `${process.pid}.sock`), resolve)
  await promise
  await chmod(path, 0o600)
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

async function removeDead(directory: string): Promise<void> {
  for (const name of await readdir(directory)) {
    const path = join(directory, name)
    if (NAME.test(name) && !(await isAnswered(path))) await rm(path, { force: true })
  }
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
