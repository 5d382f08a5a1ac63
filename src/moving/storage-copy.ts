import type { Database } from '../metadata/database.ts'
import * as rows from '../metadata/storage-copy.ts'
import type { BlobStore } from '../storage/blob-store.ts'
import type { Stores } from '../storage/stores.ts'
import { BlobUncopyable, copyBlob } from './copy-blob.ts'
import { Pace } from './pace.ts'

/** What a move works with. Durations in milliseconds. */
export interface StorageCopyOptions {
  readonly db: Database
  readonly stores: Stores
  readonly graceMs: number
  readonly draftMs: number
  /** Whether this registry may keep content in a store: it does not move anything into another's. */
  readonly mayUse: (store: BlobStore) => Promise<boolean>
  /** Told which blob could not be copied, and why. */
  readonly onFailure: (blob: rows.StoredBlob, error: unknown) => void
  /** How long a process that died holds up the others. */
  readonly leaseMs?: number
  /** How often progress is recorded and the lease renewed. */
  readonly beatMs?: number
}

const LEASE_MS = 20_000
const BEAT_MS = 1_000
const BATCH = 100

/** The move was stopped, or another process has it. */
class Interrupted extends Error {
  override readonly name = 'Interrupted'
}

/**
 * Works on the move that was asked for, if there is one and no other process does: blob by blob, in the order of their
 * ids, several at once. A blob that cannot be copied is counted and stays where it is. What comes into the other stores
 * meanwhile is moved too, until a round finds nothing new. Does nothing twice, so that it may die or be stopped at any
 * time, and even two at once do no harm. Answers the outcome, or undefined where there was nothing to do here.
 * @throws what a store or the index fails with: a later call goes on; the signal's reason when it fires.
 */
export async function workOnCopy(
  options: StorageCopyOptions,
  signal: AbortSignal,
): Promise<rows.CopyOutcome | undefined> {
  const { db, leaseMs = LEASE_MS, beatMs = BEAT_MS } = options
  const row = await db.transaction(tx => rows.takeCopy(tx, leaseMs))
  if (row === undefined) return undefined
  const run = new Run(options, row)
  const stop = new AbortController()
  const save = async (): Promise<void> => {
    try {
      if (!(await run.save(leaseMs))) stop.abort(new Interrupted())
    } catch (error) {
      stop.abort(error)
    }
  }
  let saving: Promise<void> | undefined
  const timer = setInterval(() => {
    saving ??= save().finally(() => {
      saving = undefined
    })
  }, beatMs)
  try {
    const outcome = await run.all(AbortSignal.any([signal, stop.signal]))
    await saving
    await run.save(leaseMs)
    await db.transaction(tx => rows.endCopy(tx, row.epoch, outcome))
    return outcome
  } catch (error) {
    if (stop.signal.reason instanceof Interrupted) return undefined
    // What stopped us may be the index itself; then the lease ends by itself.
    if (signal.aborted) await run.save(0).catch(() => undefined)
    else await run.saveFailure(error, leaseMs).catch(() => undefined)
    throw error
  } finally {
    clearInterval(timer)
    await saving
  }
}

/** One process's work on a move. */
class Run {
  readonly #options: StorageCopyOptions
  readonly #row: rows.StorageCopyRow
  readonly #sources: readonly BlobStore[]
  readonly #pace: Pace
  #counts: rows.CopyCounts

  constructor(options: StorageCopyOptions, row: rows.StorageCopyRow) {
    this.#options = options
    this.#row = row
    this.#counts = row
    this.#sources = options.stores.all.filter(store => store.name !== row.target)
    this.#pace = new Pace(row.bytes_per_second ?? undefined)
  }

  async save(leaseMs: number): Promise<boolean> {
    return await this.#options.db.transaction(tx => rows.keepCopy(tx, this.#row.epoch, this.#counts, leaseMs))
  }

  /** Says what the next try waits for. */
  async saveFailure(error: unknown, leaseMs: number): Promise<void> {
    const message = error instanceof Error ? error.message : String(error)
    this.#counts = { ...this.#counts, last_failure: message }
    await this.save(leaseMs)
  }

  async all(signal: AbortSignal): Promise<rows.CopyOutcome> {
    const target = this.#options.stores.of(this.#row.target)
    if (!(await this.#options.mayUse(target))) {
      this.#counts = { ...this.#counts, last_failure: `the store ${target.name} belongs to another registry` }
      return 'incomplete'
    }
    for (;;) {
      const left = await this.#measure()
      const before = this.#counts.copied_blobs
      this.#counts = { ...this.#counts, failed_blobs: 0 }
      for (const source of this.#sources) await this.#drain(source, target, signal)
      // What remains failed, or came after its turn: another round, until one moves nothing.
      if (left.blobs === 0 || this.#counts.copied_blobs === before) break
    }
    return (await this.#measure()).blobs === 0 ? 'done' : 'incomplete'
  }

  async #measure(): Promise<{ readonly blobs: number }> {
    const left = await rows.measureStoredBlobs(
      this.#options.db,
      this.#sources.map(store => store.name),
    )
    const { copied_blobs: blobs, copied_bytes: bytes } = this.#counts
    this.#counts = { ...this.#counts, found_blobs: blobs + left.blobs, found_bytes: bytes + left.bytes }
    return left
  }

  /** Moves what a store holds. The first error other than about one blob ends all of it. */
  async #drain(source: BlobStore, target: BlobStore, signal: AbortSignal): Promise<void> {
    const { db, graceMs, draftMs } = this.#options
    const context = { db, target, pace: this.#pace, graceMs, draftMs }
    const failed = new AbortController()
    const either = AbortSignal.any([signal, failed.signal])
    const queue = this.#blobsOf(source)
    const work = async (): Promise<void> => {
      for await (const blob of queue) {
        either.throwIfAborted()
        try {
          if (await copyBlob(context, source, blob, either)) this.#copied(blob)
        } catch (error) {
          if (!(error instanceof BlobUncopyable)) throw error
          // A store that does not answer at all says nothing about its blobs.
          await source.check()
          this.#failed(blob, error)
        }
      }
    }
    const workers = Array.from({ length: this.#row.at_once }, async () => {
      try {
        await work()
      } catch (error) {
        failed.abort(error)
      }
    })
    await Promise.all(workers)
    either.throwIfAborted()
  }

  async *#blobsOf(source: BlobStore): AsyncGenerator<rows.StoredBlob> {
    let last = 0
    for (;;) {
      const page = await rows.listStoredBlobs(this.#options.db, source.name, last, BATCH)
      yield* page
      const end = page.at(-1)
      if (end === undefined) return
      last = end.id
    }
  }

  #copied({ size }: rows.StoredBlob): void {
    const { copied_blobs: blobs, copied_bytes: bytes } = this.#counts
    this.#counts = { ...this.#counts, copied_blobs: blobs + 1, copied_bytes: bytes + size }
  }

  #failed(blob: rows.StoredBlob, error: Error): void {
    const failures = this.#counts.failed_blobs + 1
    this.#counts = { ...this.#counts, failed_blobs: failures, last_failure: `${blob.digest}: ${error.message}` }
    this.#options.onFailure(blob, error)
  }
}
