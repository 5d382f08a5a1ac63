import { chmod, mkdir, readdir, rm } from 'node:fs/promises'
import type { Server } from 'node:http'
import { connect } from 'node:net'
import { join, relative } from 'node:path'

/** Where running servers put their sockets, below the data directory. */
const DIRECTORY = 'run'
const NAME = /^(\d+)\.sock$/
/** What the kernel takes as a socket's path: sizeof sun_path, less its NUL. */
const MAX_PATH_BYTES = 107

/**
 * Lets the administrator of this machine reach a running server: a socket in the data directory that only the user who
 * runs the server can open. Sockets that dead servers left are removed. @returns its path.
 */
export async function listenLocally(server: Server, dataDir: string): Promise<string> {
  const directory = join(dataDir, DIRECTORY)
  await mkdir(directory, { recursive: true, mode: 0o700 })
  await chmod(directory, 0o700)
  await removeDead(directory)
  const path = join(directory, `${process.pid}.sock`)
  await rm(path, { force: true })
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  server.once('error', reject)
  server.listen(shortPath(path), resolve)
  await promise
  await chmod(path, 0o600)
  return path
}

/** Sockets of servers that answer, in a data directory. */
export async function findLocalSockets(dataDir: string): Promise<string[]> {
  const directory = join(dataDir, DIRECTORY)
  const names = await readdir(directory).catch(() => [])
  const paths = names.filter(name => NAME.test(name)).map(name => shortPath(join(directory, name)))
  const alive = await Promise.all(paths.map(isAnswered))
  return paths.filter((_, index) => alive[index])
}

async function removeDead(directory: string): Promise<void> {
  for (const name of await readdir(directory)) {
    const path = join(directory, name)
    if (NAME.test(name) && !(await isAnswered(shortPath(path)))) await rm(path, { force: true })
  }
}

/** Long paths are named from the working directory, where that is shorter. */
function shortPath(path: string): string {
  if (Buffer.byteLength(path) <= MAX_PATH_BYTES) return path
  const short = relative(process.cwd(), path)
  if (Buffer.byteLength(short) <= MAX_PATH_BYTES) return short
  throw new Error(`the path of the administrator's socket is too long for a socket (${path}): use a shorter data.dir`)
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
