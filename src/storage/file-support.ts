import { constants } from 'node:fs'
import { open, opendir, stat, unlink, type FileHandle } from 'node:fs/promises'
import { BlobMissing, BodyAborted, StoreUnavailable } from './blob-store.ts'

/** Opens a file; `flags` as in open(2). Tests put a failing one in its place. */
export type OpenFile = (path: string, flags: number) => Promise<FileHandle>

export const openFile: OpenFile = (path, flags) => open(path, flags, 0o640)

export function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code
}

/** The contract's own errors as they are, those of the operating system as StoreUnavailable, any other as it is. */
export function translated(error: unknown): unknown {
  if (error instanceof BlobMissing || error instanceof BodyAborted || error instanceof StoreUnavailable) return error
  if (error instanceof Error && 'syscall' in error && 'code' in error) {
    return new StoreUnavailable(`The file system answered ${String(error.code)} to ${String(error.syscall)}`, {
      cause: error,
    })
  }
  return error
}

/** Runs `work`, rejecting with what `translated` makes of its error. */
export async function guarded<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw translated(error)
  }
}

/** Removes a file; absent is success. */
export async function removed(path: string): Promise<void> {
  try {
    await unlink(path)
  } catch (error) {
    if (!hasCode(error, 'ENOENT')) throw error
  }
}

/** Undefined when nothing has this path. */
export async function statOrAbsent(path: string): Promise<{ readonly size: number; readonly mtime: Date } | undefined> {
  try {
    return await stat(path)
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined
    throw error
  }
}

/** The names in a directory. */
export async function* entries(directory: string): AsyncGenerator<string> {
  for await (const entry of await guarded(() => opendir(directory))) yield entry.name
}

const largestShare = 1024 * 1024
const smallestShare = 16 * 1024

/** Divides the memory for buffers among the transfers that run. Each may hold two shares. */
export class BufferBudget {
  readonly #bytes: number
  #transfers = 0

  /** @param bytes the whole budget */
  constructor(bytes: number) {
    this.#bytes = bytes
  }

  /** Bytes one buffer may have now: at most 1 MiB, at least 16 KiB. */
  get share(): number {
    const even = Math.floor(this.#bytes / (2 * Math.max(1, this.#transfers)))
    return Math.max(smallestShare, Math.min(largestShare, even))
  }

  /** Counts a transfer as running for as long as `work` does. */
  async during<T>(work: () => Promise<T>): Promise<T> {
    this.#transfers += 1
    try {
      return await work()
    } finally {
      this.#transfers -= 1
    }
  }
}

/**
 * Makes directory entries durable. Callers that arrive while a directory is being synced share the next sync,
 * because the running one may have begun before their change.
 */
export class DirectorySync {
  readonly #open: OpenFile
  readonly #running = new Map<string, Promise<void>>()
  readonly #next = new Map<string, Promise<void>>()

  constructor(open: OpenFile) {
    this.#open = open
  }

  /** Resolves when every change made to `directory` before the call is durable. */
  sync(directory: string): Promise<void> {
    const running = this.#running.get(directory)
    if (running === undefined) return this.#start(directory)
    let next = this.#next.get(directory)
    if (next === undefined) {
      const begin = (): Promise<void> => {
        this.#next.delete(directory)
        return this.#start(directory)
      }
      next = running.then(begin, begin)
      this.#next.set(directory, next)
    }
    return next
  }

  #start(directory: string): Promise<void> {
    const running = this.#sync(directory).finally(() => {
      if (this.#running.get(directory) === running) this.#running.delete(directory)
    })
    this.#running.set(directory, running)
    return running
  }

  async #sync(directory: string): Promise<void> {
    const handle = await this.#open(directory, constants.O_RDONLY)
    try {
      await handle.sync()
    } finally {
      await handle.close()
    }
  }
}
