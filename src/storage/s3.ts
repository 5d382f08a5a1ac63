import type { Readable, Writable } from 'node:stream'
import {
  type AppendOptions,
  type BlobStore,
  type ByteRange,
  type Presigning,
  StoreUnavailable,
  type StorageKey,
  type StoredItem,
  type WriteState,
} from './blob-store.ts'
import { newKey } from './keys.ts'
import { S3Bucket } from './s3-bucket.ts'
import type { S3Options } from './s3-client.ts'
import { finishDraft } from './s3-finish.ts'
import { UploadMemory } from './s3-memory.ts'
import { readObject, sendChunks } from './s3-reader.ts'
import { draftOf } from './s3-state.ts'
import { SmallBlobs } from './small-blobs.ts'
import { S3Writer, type WriterOptions } from './s3-writer.ts'

// <prefix>
//   3f/        the first two digits of the key
//     3f…      one object for each blob, never written twice; or a piece of unfinished content
//   marker     whose store this is: the one object that is written again
//
// Unfinished content is also in multipart uploads to the later object.

const MiB = 1024 * 1024
const PART_BYTES = 16 * MiB
const PATIENCE_MS = 10_000
const LEAST_PARTS = 4
/** Share of the budget that buffers may have. */
const HANDED_OUT = 3 / 4
const DELETES_AT_ONCE = 16
/** A blob up to this size, such as an image's config, is kept in memory after it was sent whole. */
const SMALL_BYTES = 64 * 1024
const SMALL_BLOBS_BYTES = 16 * MiB

export interface S3StoreOptions extends S3Options, Partial<WriterOptions> {
  /**
   * The budget of memory for bytes on their way to S3; at least four parts. A quarter of it is not handed out where there
   * is more: what came from the sockets and was copied already lies in memory too, until the next garbage collection.
   */
  readonly uploadMemoryBytes: number
}

/** Opens the store in a bucket. No request is made: see `checkBucket`. @throws Error when the options cannot be used. */
export function openS3Store(options: S3StoreOptions): S3Store {
  return new S3Store(options)
}

/** Blobs as objects under random keys. Any number of processes may share a bucket. */
export class S3Store implements BlobStore, Presigning {
  readonly name = 's3'
  readonly bucket: S3Bucket
  readonly memory: UploadMemory
  readonly #limits: WriterOptions
  readonly #small = new SmallBlobs(SMALL_BLOBS_BYTES)

  constructor({ uploadMemoryBytes, partBytes = PART_BYTES, patienceMs = PATIENCE_MS, ...options }: S3StoreOptions) {
    if (uploadMemoryBytes < LEAST_PARTS * partBytes) throw new RangeError('The memory for uploads is less than 4 parts')
    this.bucket = new S3Bucket(options)
    this.memory = new UploadMemory(Math.max(LEAST_PARTS * partBytes, Math.floor(uploadMemoryBytes * HANDED_OUT)))
    this.#limits = { partBytes, patienceMs }
  }

  // A later attempt keeps its bytes under a key, or in parts with ETags, of its own.
  fence(state: WriteState): Promise<WriteState> {
    return Promise.resolve(state)
  }

  begin(): WriteState {
    return { key: newKey(), offset: 0 }
  }

  append(state: WriteState, body: Readable, options: AppendOptions): Promise<WriteState> {
    return new S3Writer(this.bucket, this.memory, this.#limits, state, body, options).run()
  }

  finish(state: WriteState): Promise<StorageKey> {
    return finishDraft(this.bucket, this.memory, draftOf(state))
  }

  async abort(state: WriteState): Promise<void> {
    const { key, uploadId, holds } = draftOf(state)
    if (uploadId !== undefined) await this.bucket.abortUpload(key, uploadId)
    await this.delete(holds.map(hold => hold.key))
  }

  send(key: StorageKey, range: ByteRange | undefined, to: Writable, signal: AbortSignal): Promise<void> {
    const kept = this.#small.get(key)
    return sendChunks(stop => (kept === undefined ? this.#fetched(key, range, stop) : slice(kept, range)), to, signal)
  }

  async *#fetched(key: StorageKey, range: ByteRange | undefined, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const chunks: Uint8Array[] = []
    let bytes = 0
    for await (const chunk of readObject(this.bucket, key, range, signal)) {
      bytes += chunk.byteLength
      if (range === undefined && bytes <= SMALL_BYTES) chunks.push(chunk)
      yield chunk
    }
    if (range === undefined && bytes <= SMALL_BYTES) this.#small.keep(key, Buffer.concat(chunks))
  }

  read(key: StorageKey, signal: AbortSignal): AsyncIterable<Uint8Array> {
    return readObject(this.bucket, key, undefined, signal)
  }

  stat(key: StorageKey): Promise<{ readonly size: number } | undefined> {
    return this.bucket.head(key)
  }

  async delete(keys: readonly StorageKey[]): Promise<void> {
    for (const key of keys) this.#small.drop(key)
    // One by one: a request for many is the one that most servers treat differently.
    for (let from = 0; from < keys.length; from += DELETES_AT_ONCE) {
      await Promise.all(keys.slice(from, from + DELETES_AT_ONCE).map(key => this.bucket.remove(key)))
    }
  }

  async *list(): AsyncGenerator<StoredItem> {
    yield* this.bucket.uploads()
    yield* this.bucket.objects()
  }

  readMarker(): Promise<string | undefined> {
    return this.bucket.readMarker()
  }

  writeMarker(text: string): Promise<void> {
    return this.bucket.writeMarker(text)
  }

  presign(key: StorageKey, ttlSeconds: number, contentType: string): Promise<URL> {
    return this.bucket.presign(key, ttlSeconds, contentType)
  }

  async check(): Promise<void> {
    // Nothing has this key; that the store says so shows that it answers us.
    await this.bucket.head(newKey())
  }

  async close(): Promise<void> {
    this.bucket.close()
  }
}

async function* slice(bytes: Uint8Array, range: ByteRange | undefined): AsyncGenerator<Uint8Array> {
  const wanted = range === undefined ? bytes : bytes.subarray(range.start, range.end + 1)
  if (range !== undefined && range.end >= bytes.byteLength) {
    throw new StoreUnavailable(`A blob of ${bytes.byteLength} bytes has no bytes ${range.start} to ${range.end}`)
  }
  if (wanted.byteLength > 0) yield wanted
}
