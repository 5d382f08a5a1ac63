import { randomUUID } from 'node:crypto'
import { type FileHandle, link, open, readFile, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'

const READ_BYTES = 256 * 1024
const POLL_MS = 25
/** Polls in vain between two questions whether the writer is alive. */
const ASK_EVERY = 20
const IDENTITY = 'identity'

/** What tells a directory from all others, by whatever path processes reach it: written by the first that opens it. */
export async function identityOf(directory: string): Promise<string> {
  const path = join(directory, IDENTITY)
  const own = join(directory, `${randomUUID()}.new`)
  await writeFile(own, randomUUID())
  try {
    // All at once or not at all, so that nobody reads half of it.
    await link(own, path).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error
    })
  } finally {
    await unlink(own)
  }
  return (await readFile(path, 'utf8')).trim()
}

/**
 * A file from byte `start` to its `size` while another process appends to it. Ends early, by an error, once it does not
 * grow and `isAlive` says that its writer is gone. Undefined where there is no such file.
 */
export async function followFile(
  path: string,
  start: number,
  size: number,
  isAlive: () => Promise<boolean>,
  signal: AbortSignal,
): Promise<Readable | undefined> {
  let file
  try {
    file = await open(path, 'r')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
  const body = Readable.from(growing(file, start, size, isAlive, signal), { objectMode: false })
  // Also where nobody has read from it.
  const handle = file
  body.once('close', () => void handle.close())
  return body
}

async function* growing(
  file: FileHandle,
  start: number,
  size: number,
  isAlive: () => Promise<boolean>,
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  let quiet = 0
  for (let at = start; at < size;) {
    const buffer = Buffer.allocUnsafe(Math.min(READ_BYTES, size - at))
    const { bytesRead } = await file.read(buffer, 0, buffer.byteLength, at)
    at += bytesRead
    if (bytesRead > 0) {
      quiet = 0
      yield buffer.subarray(0, bytesRead)
      continue
    }
    quiet += 1
    if (quiet % ASK_EVERY === 0 && !(await isAlive())) throw new Error('the process that fetched the blob is gone')
    await delay(POLL_MS, undefined, { signal })
  }
}
