import type { StorageKey } from './blob-store.ts'
import type { S3Bucket } from './s3-bucket.ts'
import type { UploadMemory } from './s3-memory.ts'

/** One connection to S3 rarely carries what a client sends; memory bounds the parts of all uploads together. */
const IN_FLIGHT = 3

/** Stores parts of one multipart upload side by side, and hears of them in their order. */
export class PartUploads {
  readonly #bucket: S3Bucket
  readonly #memory: UploadMemory
  readonly #onStored: (etag: string) => void
  readonly #onFailure: () => void
  readonly #running = new Set<Promise<void>>()
  readonly #etags = new Map<number, string>()
  #next: number | undefined
  #telling: Promise<void> = Promise.resolve()
  #failure: { readonly error: unknown } | undefined

  constructor(
    bucket: S3Bucket,
    memory: UploadMemory,
    told: { readonly onStored: (etag: string) => void; readonly onFailure: () => void },
  ) {
    this.#bucket = bucket
    this.#memory = memory
    this.#onStored = told.onStored
    this.#onFailure = told.onFailure
  }

  /** Begins to store a part as soon as few enough are under way, and releases its buffer when that ended. @throws the first failure */
  async send(key: StorageKey, uploadId: string, number: number, buffer: Buffer): Promise<void> {
    this.#next ??= number
    while (this.#running.size >= IN_FLIGHT && this.#failure === undefined) await Promise.race(this.#running)
    if (this.#failure !== undefined) {
      this.#memory.release(buffer)
      throw this.#failure.error
    }
    const run = this.#store(key, uploadId, number, buffer).finally(() => this.#running.delete(run))
    this.#running.add(run)
  }

  /** Runs `tell` after all that was told before; its failure is one of these uploads. */
  tell(tell: () => Promise<void>): void {
    this.#telling = this.#telling.then(tell).catch((error: unknown) => this.#fail(error))
  }

  /** @throws the first failure */
  check(): void {
    if (this.#failure !== undefined) throw this.#failure.error
  }

  /** Resolves when nothing is under way. @throws the first failure */
  async settle(): Promise<void> {
    await this.ended()
    this.check()
  }

  /** Resolves when nothing is under way, whatever came of it. */
  async ended(): Promise<void> {
    while (this.#running.size > 0) await Promise.race(this.#running)
    await this.#telling
    this.#next = undefined
  }

  async #store(key: StorageKey, uploadId: string, number: number, buffer: Buffer): Promise<void> {
    try {
      this.#etags.set(number, await this.#bucket.putPart(key, uploadId, number, buffer))
    } catch (error) {
      this.#fail(error)
      return
    } finally {
      this.#memory.release(buffer)
    }
    for (let next = this.#next; next !== undefined; this.#next = next) {
      const etag = this.#etags.get(next)
      if (etag === undefined) return
      this.#etags.delete(next)
      this.#onStored(etag)
      next += 1
    }
  }

  #fail(error: unknown): void {
    this.#failure ??= { error }
    this.#onFailure()
  }
}
