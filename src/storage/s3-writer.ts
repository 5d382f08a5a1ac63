import type { Readable } from 'node:stream'
import {
  type AppendOptions,
  BodyAborted,
  ContentTooLarge,
  type StorageKey,
  WriteLost,
  type WriteState,
} from './blob-store.ts'
import { BodySource, interrupted } from './body-source.ts'
import { newKey } from './keys.ts'
import type { S3Bucket } from './s3-bucket.ts'
import { dropHolds, readHolds } from './s3-finish.ts'
import type { UploadMemory } from './s3-memory.ts'
import { PartUploads } from './s3-parts.ts'
import { type Draft, draftOf, heldBytes, offsetOf, stateOf } from './s3-state.ts'

const MiB = 1024 * 1024
/** S3's own limit. */
const MOST_PARTS = 10_000
const TELL_EVERY = 64 * MiB
const SMALLEST_BUFFER = MiB / 4
/** How much more each next buffer has, for content of unknown length. */
const GROWTH = 8
const GROWTH_WAIT_MS = 250
/** Objects that hold unfinished bytes, before they are joined into one. */
const MOST_HOLDS = 64

export interface WriterOptions {
  /** Size of a part, unless the content is known to need larger ones. */
  readonly partBytes: number
  /** How long an append may keep memory it does not fill while others wait. */
  readonly patienceMs: number
}

type Occasion = 'parked' | 'aborted' | 'end' | 'last'

/**
 * One append. Bytes gather in a buffer; a full one becomes a part of the multipart upload to the content's key. What is
 * left at the end becomes an object of its own: under the key itself where it is all there is (then finishing needs
 * nothing more), else beside it, because parts cannot be read back when the content goes on. At the end of a body the
 * rest is stored as the last part too, so that finishing need not read it.
 */
export class S3Writer {
  readonly #bucket: S3Bucket
  readonly #memory: UploadMemory
  readonly #limits: WriterOptions
  readonly #options: AppendOptions
  readonly #source: BodySource
  readonly #parts: PartUploads
  /** What is durable, whether told or not. */
  #draft: Draft
  #toldOffset: number
  /** Objects that the draft does not need any more, and those that no told state needs either. */
  readonly #obsolete: StorageKey[] = []
  readonly #removable: StorageKey[] = []
  /** Parts stored or under way. */
  #sent: number
  /** Bytes that objects hold for the part that fills now. */
  #tail: number
  #buffer: Buffer | undefined
  /** Where in the buffer the new bytes begin: a full-sized one has room before them for the tail. */
  #start = 0
  #bytes = 0
  #heldSince = 0
  #remaining: number | undefined
  /** Whether memory was so short that a buffer could not grow: from then on it is waited for without holding any. */
  #isCrowded = false
  /** Whether an earlier writer may have used the key without telling. */
  #isKeyDoubtful: boolean

  constructor(
    bucket: S3Bucket,
    memory: UploadMemory,
    limits: WriterOptions,
    state: WriteState,
    body: Readable,
    options: AppendOptions,
  ) {
    this.#bucket = bucket
    this.#memory = memory
    this.#limits = limits
    this.#options = options
    this.#draft = draftOf(state)
    this.#toldOffset = state.offset
    this.#sent = this.#draft.parts.length
    this.#tail = heldBytes(this.#draft)
    this.#remaining = options.length
    this.#isKeyDoubtful = (options.attempt ?? 2) > 1
    this.#source = new BodySource(body, options.signal)
    this.#parts = new PartUploads(bucket, memory, {
      onStored: etag => this.#stored(etag),
      onFailure: () => this.#source.interrupt(),
    })
  }

  /** Appends the whole body. @throws as `BlobStore.append` does */
  async run(): Promise<WriteState> {
    const patience = setInterval(() => {
      const heldMs = performance.now() - this.#heldSince
      const isSlow = this.#buffer !== undefined && heldMs > this.#limits.patienceMs
      if (isSlow && this.#memory.contended) this.#source.interrupt()
    }, this.#limits.patienceMs / 2)
    try {
      await this.#receive()
      await this.#flush(this.#options.last === true ? 'last' : 'end')
      return stateOf(this.#draft)
    } catch (error) {
      if (error instanceof BodyAborted) await this.#flush('aborted')
      throw error
    } finally {
      clearInterval(patience)
      this.#source.release()
      await this.#parts.ended()
      this.#letGo()
      await dropHolds(this.#bucket, this.#removable)
    }
  }

  async #receive(): Promise<void> {
    for (;;) {
      const chunk = await this.#source.next()
      if (chunk === undefined) return
      this.#parts.check()
      if (chunk === interrupted) await this.#flush('parked')
      else await this.#take(chunk)
    }
  }

  async #take(chunk: Uint8Array): Promise<void> {
    for (let taken = 0; taken < chunk.byteLength;) {
      await this.#prepare()
      const room = await this.#makeRoom()
      if (room === 0) continue
      const slice = chunk.subarray(taken, taken + room)
      this.#buffer?.set(slice, this.#start + this.#bytes)
      this.#bytes += slice.byteLength
      taken += slice.byteLength
      this.#options.observe(slice)
      if (this.#remaining !== undefined) this.#remaining = Math.max(0, this.#remaining - slice.byteLength)
      if (this.#tail + this.#bytes === this.#draft.partBytes) await this.#sendPart()
    }
  }

  /** Fixes the size of parts, and leaves a key that must not be written to again. */
  async #prepare(): Promise<void> {
    const { partBytes, wholeBytes, last, holds, uploadId } = this.#draft
    if (partBytes === 0) this.#draft = { ...this.#draft, partBytes: this.#partBytesFor(this.#remaining ?? 0) }
    if (last !== undefined && holds.length === 0) {
      throw new WriteLost('Content that was said to be complete goes on, and its last bytes cannot be read back')
    }
    const isUsed = wholeBytes !== undefined || (this.#isKeyDoubtful && uploadId === undefined)
    this.#isKeyDoubtful = false
    if (!isUsed) return
    const { key } = this.#draft
    const kept = wholeBytes === undefined ? holds : [{ key, bytes: wholeBytes }]
    this.#draft = { ...this.#draft, key: newKey(), holds: kept, wholeBytes: undefined }
    this.#tail = heldBytes(this.#draft)
    await this.#tell()
  }

  #partBytesFor(length: number): number {
    const needed = Math.ceil(length / MOST_PARTS / MiB) * MiB
    const most = Math.max(this.#limits.partBytes, Math.floor(this.#memory.bytes / 4 / MiB) * MiB)
    if (needed > most) throw new ContentTooLarge(most * MOST_PARTS)
    return Math.max(this.#limits.partBytes, needed)
  }

  /** How many bytes the buffer can take; 0 when it could take none and everything was made durable or sent instead. */
  async #makeRoom(): Promise<number> {
    const { partBytes } = this.#draft
    const left = partBytes - this.#tail - this.#bytes
    if (left === 0) {
      await this.#sendPart()
      return 0
    }
    if (this.#buffer === undefined) this.#hold(await this.#acquire(this.#firstSize(left)))
    const capacity = (): number => (this.#buffer?.byteLength ?? 0) - this.#start - this.#bytes
    if (capacity() === 0 && !(await this.#grow((this.#buffer?.byteLength ?? 0) * GROWTH))) {
      await this.#flush('parked')
      return 0
    }
    return Math.min(left, capacity())
  }

  #firstSize(left: number): number {
    const { partBytes } = this.#draft
    const isLarge = this.#isCrowded || this.#sent > 0
    const expected = this.#remaining ?? (isLarge ? partBytes : 0)
    if (expected >= left) return partBytes
    let size = SMALLEST_BUFFER
    while (size < expected) size *= GROWTH
    return Math.min(size, partBytes)
  }

  async #acquire(bytes: number): Promise<Buffer> {
    const buffer = await this.#memory.acquire(bytes, this.#source.stopped)
    if (buffer === undefined) throw this.#source.stopped.reason
    return buffer
  }

  #hold(buffer: Buffer): void {
    this.#buffer = buffer
    this.#start = buffer.byteLength === this.#draft.partBytes ? this.#tail : 0
    this.#heldSince = performance.now()
  }

  /** Moves the bytes to a buffer of `size`, at most a part's; false when memory for it did not come in time. */
  async #grow(size: number): Promise<boolean> {
    const old = this.#buffer
    const wanted = Math.min(size, this.#draft.partBytes)
    if (old === undefined || old.byteLength === wanted) return old !== undefined
    const bigger = await this.#memory.acquire(wanted, this.#source.stopped, GROWTH_WAIT_MS)
    if (bigger === undefined) {
      this.#isCrowded = true
      return false
    }
    const bytes = old.subarray(this.#start, this.#start + this.#bytes)
    this.#hold(bigger)
    bigger.set(bytes, this.#start)
    this.#memory.release(old)
    return true
  }

  #letGo(): void {
    if (this.#buffer !== undefined) this.#memory.release(this.#buffer)
    this.#buffer = undefined
    this.#bytes = 0
  }

  /** Sends a part that is complete. When memory to join its pieces is short they become durable, and it is sent later. */
  async #sendPart(): Promise<void> {
    const { partBytes, holds } = this.#draft
    if (this.#buffer === undefined) this.#hold(await this.#acquire(partBytes))
    const hasRoom = await this.#grow(partBytes)
    const buffer = this.#buffer
    if (!hasRoom || buffer === undefined) {
      await this.#flush('parked')
      return
    }
    if (this.#tail > 0) await readHolds(this.#bucket, holds, buffer)
    if (this.#sent === MOST_PARTS) throw new ContentTooLarge(MOST_PARTS * partBytes)
    const uploadId = await this.#uploadId()
    this.#buffer = undefined
    this.#bytes = 0
    this.#tail = 0
    this.#sent += 1
    await this.#parts.send(this.#draft.key, uploadId, this.#sent, buffer)
  }

  async #uploadId(): Promise<string> {
    if (this.#draft.uploadId !== undefined) return this.#draft.uploadId
    const uploadId = await this.#bucket.createUpload(this.#draft.key)
    this.#draft = { ...this.#draft, uploadId }
    await this.#tell()
    return uploadId
  }

  #stored(etag: string): void {
    const { parts, holds, partBytes } = this.#draft
    this.#obsolete.push(...holds.map(hold => hold.key))
    this.#draft = { ...this.#draft, parts: [...parts, etag], holds: [], last: undefined }
    const untold = offsetOf(this.#draft) - this.#toldOffset
    if (untold + partBytes > TELL_EVERY) this.#parts.tell(() => this.#tell())
  }

  async #tell(): Promise<void> {
    const state = stateOf(this.#draft)
    const obsolete = this.#obsolete.splice(0)
    this.#toldOffset = state.offset
    await this.#options.onDurable(state)
    this.#removable.push(...obsolete)
  }

  /** Makes everything durable, tells it and lets go of the memory. */
  async #flush(occasion: Occasion): Promise<void> {
    await this.#parts.settle()
    if (this.#bytes > 0) await this.#storeRest(occasion)
    this.#letGo()
    this.#tail = heldBytes(this.#draft)
    await this.#tell()
  }

  async #storeRest(occasion: Occasion): Promise<void> {
    const { key, uploadId, holds, parts } = this.#draft
    if (uploadId === undefined && holds.length === 0) {
      await this.#bucket.put(key, this.#rest())
      this.#draft = { ...this.#draft, wholeBytes: this.#bytes }
      return
    }
    const isJoined = (occasion === 'last' || holds.length >= MOST_HOLDS) && (this.#tail === 0 || (await this.#join()))
    const bytes = this.#rest()
    if (isJoined) {
      this.#obsolete.push(...holds.map(hold => hold.key))
      this.#draft = { ...this.#draft, holds: [], last: undefined }
    }
    if (isJoined && occasion === 'last') {
      if (uploadId === undefined) {
        await this.#bucket.put(key, bytes)
        this.#draft = { ...this.#draft, wholeBytes: bytes.byteLength }
      } else this.#draft = { ...this.#draft, last: await this.#lastPart(uploadId, bytes) }
      return
    }
    const hold = { key: newKey(), bytes: bytes.byteLength }
    const isLast = occasion === 'end' && uploadId !== undefined && this.#draft.holds.length === 0
    const [last] = await Promise.all([
      isLast ? this.#lastPart(uploadId, bytes) : undefined,
      this.#bucket.put(hold.key, bytes),
    ])
    this.#draft = { ...this.#draft, holds: [...this.#draft.holds, hold], parts, last }
  }

  async #lastPart(uploadId: string, bytes: Uint8Array): Promise<{ readonly etag: string; readonly bytes: number }> {
    const { key, parts } = this.#draft
    // Without a number left, finishing fails with the limit; the bytes stay where they are.
    if (parts.length === MOST_PARTS) throw new ContentTooLarge(MOST_PARTS * this.#draft.partBytes)
    const etag = await this.#bucket.putPart(key, uploadId, parts.length + 1, bytes)
    return { etag, bytes: bytes.byteLength }
  }

  /** Puts the tail before the new bytes in a buffer that has room for both; false when there was no memory for one. */
  async #join(): Promise<boolean> {
    if (!(await this.#grow(this.#draft.partBytes)) || this.#buffer === undefined) return false
    await readHolds(this.#bucket, this.#draft.holds, this.#buffer)
    this.#start = 0
    this.#bytes += this.#tail
    return true
  }

  #rest(): Uint8Array {
    return this.#buffer?.subarray(this.#start, this.#start + this.#bytes) ?? new Uint8Array(0)
  }
}
