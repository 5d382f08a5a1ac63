import { constants } from 'node:fs'
import { access, copyFile, mkdir, rename, type FileHandle } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import {
  BlobMissing,
  BodyAborted,
  StoreUnavailable,
  type AppendOptions,
  type BlobStore,
  type ByteRange,
  type StorageKey,
  type StoredItem,
  type WriteState,
} from './blob-store.ts'
import { keysIn } from './file-keys.ts'
import { readMarkerFile, writeMarkerFile } from './file-marker.ts'
import { dispatch } from './file-sender.ts'
import {
  BufferBudget,
  DirectorySync,
  entries,
  guarded,
  hasCode,
  openFile,
  removed,
  statOrAbsent,
  type OpenFile,
} from './file-support.ts'
import { receive } from './file-writer.ts'
import { checked, newKey } from './keys.ts'

// <directory>/
//   blobs/              finished content
//     3f/               the first two digits of the key
//       3f…             one file for each blob, never changed
//   uploads/
//     a0…               unfinished content under its later key
//   marker              whose store this is
//
// All are on one file system, so that finishing is a rename.

const readBytes = 1024 * 1024
const deletesAtOnce = 16
// Blocks are shared where the file system can do that, and copied where it cannot.
const FRESH_AND_SHARED = constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE

export interface FilesystemOptions {
  /** What rows call the store: `filesystem` unless given. */
  readonly name?: string
  /** Created when it is absent. */
  readonly directory: string
  /** Bytes of memory that all running transfers share for their buffers: 64 MiB unless given. */
  readonly bufferBytes?: number
  /** How files are opened. */
  readonly open?: OpenFile
}

/**
 * Opens the store in a directory, creating what is missing. What `append` tells as durable and what `finish` has
 * finished survives a power cut.
 * @throws StoreUnavailable when the directory cannot be used.
 */
export async function openFilesystemStore(options: FilesystemOptions): Promise<BlobStore> {
  const { name = 'filesystem', bufferBytes = 64 * 1024 * 1024, open = openFile } = options
  const directory = resolve(options.directory)
  const directories = new DirectorySync(open)
  await guarded(async () => {
    await mkdir(join(directory, 'blobs'), { recursive: true, mode: 0o750 })
    await mkdir(join(directory, 'uploads'), { recursive: true, mode: 0o750 })
    await directories.sync(directory)
    await directories.sync(dirname(directory))
  })
  return new FilesystemStore(name, directory, new BufferBudget(bufferBytes), directories, open)
}

class FilesystemStore implements BlobStore {
  readonly name: string
  readonly #blobs: string
  readonly #uploads: string
  readonly #marker: string
  readonly #budget: BufferBudget
  readonly #directories: DirectorySync
  readonly #open: OpenFile
  readonly #shards = new Set<string>()

  constructor(name: string, directory: string, budget: BufferBudget, directories: DirectorySync, open: OpenFile) {
    this.name = name
    this.#blobs = join(directory, 'blobs')
    this.#uploads = join(directory, 'uploads')
    this.#marker = join(directory, 'marker')
    this.#budget = budget
    this.#directories = directories
    this.#open = open
  }

  begin(): WriteState {
    return { key: newKey(), offset: 0 }
  }

  append(state: WriteState, body: Readable, options: AppendOptions): Promise<WriteState> {
    const at = (offset: number): WriteState => ({ ...state, offset })
    return this.#budget.during(async () => {
      // The body may fail while the file is being opened.
      const ignore = (): void => {}
      body.on('error', ignore)
      try {
        const { file } = await guarded(() => this.#openUpload(state))
        let told = state.offset
        try {
          let named = state.offset > 0
          const sync = async (): Promise<void> => {
            await file.datasync()
            if (!named) await this.#directories.sync(this.#uploads)
            named = true
          }
          const end = await receive({
            file,
            offset: state.offset,
            body,
            signal: options.signal,
            observe: options.observe,
            gather: () => this.#budget.share,
            sync,
            onDurable: offset => {
              told = offset
              return options.onDurable(at(offset))
            },
          })
          return at(end)
        } catch (error) {
          // The rest can only be sent again, and may be what fills the disk. Failing to give it back changes nothing.
          await file.truncate(told).catch(() => undefined)
          throw error
        } finally {
          await guarded(() => file.close())
        }
      } finally {
        body.off('error', ignore)
      }
    })
  }

  // A process that was stopped for longer than its lease goes on with its next write: to a file that it has open, so
  // neither a rename nor a check before the write would keep the bytes of the next writer whole.
  fence(state: WriteState): Promise<WriteState> {
    return guarded(async () => {
      const fenced = { ...state, key: newKey() }
      if (state.offset === 0) return fenced
      const copy = this.#uploadPath(fenced.key)
      try {
        await copyFile(this.#uploadPath(state.key), copy, FRESH_AND_SHARED).catch(async (error: unknown) => {
          if (!hasCode(error, 'ENOENT')) throw error
          // The other writer got as far as finishing it.
          await copyFile(this.#blobPath(state.key), copy, FRESH_AND_SHARED)
        })
        const { file } = await this.#openUpload(fenced)
        try {
          await file.datasync()
        } finally {
          await file.close()
        }
        await this.#directories.sync(this.#uploads)
      } catch (error) {
        await removed(copy)
        throw error
      }
      return fenced
    })
  }

  finish(state: WriteState): Promise<StorageKey> {
    return guarded(async () => {
      const blob = this.#blobPath(state.key)
      const shard = dirname(blob)
      if (!(await this.#isFinished(state))) {
        const upload = await this.#openUpload(state).catch(async (error: unknown) => {
          // Another call may have finished it in between.
          if (await this.#isFinished(state)) return undefined
          throw error
        })
        if (upload !== undefined) {
          try {
            if (upload.changed) await upload.file.datasync()
          } finally {
            await upload.file.close()
          }
          await this.#makeShard(shard)
          await rename(this.#uploadPath(state.key), blob).catch(async (error: unknown) => {
            if (!hasCode(error, 'ENOENT') || !(await this.#isFinished(state))) throw error
          })
        }
      }
      await Promise.all([this.#directories.sync(shard), this.#directories.sync(this.#uploads)])
      return state.key
    })
  }

  abort(state: WriteState): Promise<void> {
    return guarded(() => removed(this.#uploadPath(state.key)))
  }

  send(key: StorageKey, range: ByteRange | undefined, to: Writable, signal: AbortSignal): Promise<void> {
    return this.#budget.during(() =>
      guarded(async () => {
        if (signal.aborted) throw cancelled(signal)
        const file = await this.#openBlob(key)
        try {
          const { size } = await file.stat()
          const start = range?.start ?? 0
          const end = range?.end ?? size - 1
          if (start < 0 || end < start - 1 || end >= size) {
            throw new StoreUnavailable(`A blob of ${size} bytes has no bytes ${start} to ${end}`)
          }
          await dispatch({
            file,
            start,
            length: end - start + 1,
            to,
            signal,
            bufferBytes: this.#budget.share,
          })
        } finally {
          await file.close()
        }
      }),
    )
  }

  async *read(key: StorageKey, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    if (signal.aborted) throw cancelled(signal)
    const file = await guarded(() => this.#openBlob(key))
    try {
      const { size } = await guarded(() => file.stat())
      for (let position = 0; position < size;) {
        const buffer = Buffer.allocUnsafeSlow(Math.min(readBytes, size - position))
        const from = position
        const { bytesRead } = await guarded(() => file.read(buffer, 0, buffer.byteLength, from))
        if (signal.aborted) throw cancelled(signal)
        if (bytesRead === 0) throw new StoreUnavailable(`A blob's file ended ${size - position} bytes too soon`)
        position += bytesRead
        yield buffer.subarray(0, bytesRead)
      }
    } finally {
      await file.close()
    }
  }

  stat(key: StorageKey): Promise<{ readonly size: number } | undefined> {
    return guarded(async () => {
      const found = await statOrAbsent(this.#blobPath(key))
      return found === undefined ? undefined : { size: found.size }
    })
  }

  delete(keys: readonly StorageKey[]): Promise<void> {
    return guarded(async () => {
      const paths = keys.map(key => this.#blobPath(key))
      for (let from = 0; from < paths.length; from += deletesAtOnce) {
        await Promise.all(paths.slice(from, from + deletesAtOnce).map(removed))
      }
    })
  }

  // Unfinished content first: what is finished meanwhile may be listed twice, but is not left out.
  async *list(): AsyncGenerator<StoredItem> {
    yield* keysIn(this.#uploads, false)
    for await (const shard of entries(this.#blobs)) {
      if (/^[0-9a-f]{2}$/.test(shard)) yield* keysIn(join(this.#blobs, shard), true)
    }
  }

  readMarker(): Promise<string | undefined> {
    return readMarkerFile(this.#marker)
  }

  async writeMarker(text: string): Promise<void> {
    await writeMarkerFile(this.#marker, text, this.#open)
    await guarded(() => this.#directories.sync(dirname(this.#marker)))
  }

  async check(): Promise<void> {
    const { R_OK, W_OK, X_OK } = constants
    await guarded(async () => {
      for (const directory of [this.#blobs, this.#uploads]) await access(directory, R_OK | W_OK | X_OK)
    })
  }

  async close(): Promise<void> {}

  #uploadPath(key: StorageKey): string {
    return join(this.#uploads, checked(key))
  }

  #blobPath(key: StorageKey): string {
    return join(this.#blobs, checked(key).slice(0, 2), key)
  }

  /** The unfinished file, exactly `state.offset` bytes long; created when that is 0. Not durable when `changed`. */
  async #openUpload(state: WriteState): Promise<{ readonly file: FileHandle; readonly changed: boolean }> {
    const create = state.offset === 0 ? constants.O_CREAT : 0
    const file = await this.#open(this.#uploadPath(state.key), constants.O_WRONLY | create)
    try {
      const { size } = await file.stat()
      if (size < state.offset) {
        throw new StoreUnavailable(`Unfinished content has ${size} bytes where ${state.offset} were durable`)
      }
      if (size > state.offset) await file.truncate(state.offset)
      return { file, changed: state.offset === 0 || size > state.offset }
    } catch (error) {
      await file.close()
      throw error
    }
  }

  async #openBlob(key: StorageKey): Promise<FileHandle> {
    try {
      return await this.#open(this.#blobPath(key), constants.O_RDONLY)
    } catch (error) {
      throw hasCode(error, 'ENOENT') ? new BlobMissing(`No blob has the key ${key}`, { cause: error }) : error
    }
  }

  async #isFinished(state: WriteState): Promise<boolean> {
    const found = await statOrAbsent(this.#blobPath(state.key))
    if (found !== undefined && found.size !== state.offset) {
      throw new StoreUnavailable(`A finished blob has ${found.size} bytes where ${state.offset} were durable`)
    }
    return found !== undefined
  }

  async #makeShard(shard: string): Promise<void> {
    if (this.#shards.has(shard)) return
    await mkdir(shard, { recursive: true, mode: 0o750 })
    await this.#directories.sync(this.#blobs)
    this.#shards.add(shard)
  }
}

function cancelled(signal: AbortSignal): BodyAborted {
  return new BodyAborted('The transfer was cancelled', { cause: signal.reason })
}
