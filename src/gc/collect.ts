import type { Database } from '../metadata/database.ts'
import type { BlobStore } from '../storage/blob-store.ts'
import { expireUploads } from './expire-uploads.ts'
import { type PurgeResult, purgeTrash } from './purge.ts'
import { type SweepOptions, type SweepResult, sweep } from './sweep.ts'
import type { Turn } from './work.ts'

/** What a collection did so far. Bytes in the trash are freed once their grace is over. */
export interface CollectionProgress {
  readonly uploads: number
  readonly manifests: number
  readonly links: number
  readonly blobs: number
  readonly trashedBytes: number
  /** Keys whose bytes were deleted, and the bytes of those whose size was known. */
  readonly purged: number
  readonly freedBytes: number
  /** Keys that the store could not delete now. */
  readonly failed: number
}

/** Told of what the collector did, batch by batch. */
export interface CollectionObserver {
  readonly swept: (batch: SweepResult) => void
  readonly purged: (batch: PurgeResult) => void
  readonly expired: (uploads: number) => void
}

const NOTHING: CollectionProgress = {
  uploads: 0,
  manifests: 0,
  links: 0,
  blobs: 0,
  trashedBytes: 0,
  purged: 0,
  freedBytes: 0,
  failed: 0,
}

/** One whole collection that somebody asked for: what the jobs do all the time, now and with its progress recorded. */
export async function collectNow(
  collector: {
    readonly db: Database
    readonly stores: readonly BlobStore[]
    /** Whether bytes may be deleted in a store now. */
    readonly mayDelete: (store: BlobStore) => Promise<boolean>
    readonly options: SweepOptions
    readonly pause: () => Promise<void>
    readonly observer: CollectionObserver
    readonly signal: AbortSignal
  },
  turn: Turn<null, CollectionProgress>,
): Promise<boolean> {
  const { db, stores, mayDelete, options, pause, observer, signal } = collector
  let done = turn.progress ?? NOTHING
  const save = async (more: Partial<CollectionProgress>): Promise<void> => {
    const added = Object.entries(more).map(([key, count]) => [key, done[key as keyof CollectionProgress] + count])
    done = { ...done, ...Object.fromEntries(added) }
    await turn.save(null, done)
  }
  const uploads = await expireUploads(db, signal)
  observer.expired(uploads)
  await save({ uploads })
  await sweep(db, options, async batch => {
    observer.swept(batch)
    const { manifests, links, blobs, bytes } = batch
    await save({ manifests, links, blobs, trashedBytes: bytes })
    await pause()
  })
  for (const store of stores) {
    await purgeTrash(db, store, {
      batch: options.batch,
      signal,
      mayDelete: () => mayDelete(store),
      async onBatch(batch) {
        observer.purged(batch)
        await save({ purged: batch.purged, freedBytes: batch.freedBytes, failed: batch.failed })
        await pause()
      },
    })
  }
  return true
}
