import type { Database } from '../metadata/database.ts'
import { type TrashRow, beginPurge, endPurge } from '../metadata/trash.ts'
import type { BlobStore, StorageKey, WriteState } from '../storage/blob-store.ts'

const BATCH = 100

/** What a purge, or one batch of it, did. */
export interface PurgeResult {
  /** Keys whose bytes are gone. */
  readonly purged: number
  /** The bytes of those whose size was known. */
  readonly freedBytes: number
  /** Keys that the store could not delete: they are tried again later. */
  readonly failed: number
}

/** How a purge is done. */
export interface PurgeOptions {
  readonly signal?: AbortSignal
  /** Keys of one batch at most. */
  readonly batch?: number
  /** Asked before every batch: whether bytes may be deleted in the store (still). The purge ends where not. */
  readonly mayDelete?: () => Promise<boolean>
  /** Runs after every batch, and may slow the purge down or end it by throwing. */
  readonly onBatch?: (batch: PurgeResult) => Promise<void>
}

/**
 * Deletes bytes that committed transactions gave up and whose grace is over: first `purging_at` is committed, then the
 * bytes go, then the row. A crash between the steps repeats them. A key that the store cannot delete holds up no other:
 * it is tried again ten minutes later. Ends between batches, by an error, when `signal` fires.
 * @throws AggregateError at the end, or as soon as of a whole batch nothing could be deleted, with what the store said.
 */
export async function purgeTrash(db: Database, store: BlobStore, options: PurgeOptions = {}): Promise<PurgeResult> {
  const { signal, batch = BATCH, mayDelete = () => Promise.resolve(true), onBatch = () => Promise.resolve() } = options
  const total = { purged: 0, freedBytes: 0, failed: 0 }
  const faults: unknown[] = []
  for (;;) {
    signal?.throwIfAborted()
    if (!(await mayDelete())) break
    const due = await db.transaction(tx => beginPurge(tx, store.name, batch))
    if (due.length === 0) break
    const gone = await deleteBytes(store, due, error => faults.push(error))
    const keys = gone.map(row => row.storage_key)
    await db.transaction(tx => endPurge(tx, store.name, keys))
    const freedBytes = gone.reduce((sum, row) => sum + (row.size ?? 0), 0)
    const result = { purged: gone.length, freedBytes, failed: due.length - gone.length }
    total.purged += result.purged
    total.freedBytes += result.freedBytes
    total.failed += result.failed
    await onBatch(result)
    // Then it is the store that fails, and going on would only mark everything as being purged.
    if (gone.length === 0) break
  }
  if (faults.length > 0)
    throw new AggregateError(faults, `${total.failed} keys could not be deleted: ${String(faults[0])}`)
  return total
}

/** Deletes all at once, or one by one where that fails. Answers the rows whose bytes are gone. */
async function deleteBytes(
  store: BlobStore,
  due: readonly TrashRow[],
  onFault: (error: unknown) => void,
): Promise<readonly TrashRow[]> {
  const aborted: TrashRow[] = []
  for (const row of due) {
    try {
      if (row.state !== null) await store.abort(row.state as WriteState)
      aborted.push(row)
    } catch (error) {
      onFault(error)
    }
  }
  try {
    await store.delete(aborted.map(row => row.storage_key as StorageKey))
    return aborted
  } catch {
    return await deleteEach(store, aborted, onFault)
  }
}

async function deleteEach(
  store: BlobStore,
  rows: readonly TrashRow[],
  onFault: (error: unknown) => void,
): Promise<readonly TrashRow[]> {
  const gone: TrashRow[] = []
  for (const row of rows) {
    try {
      await store.delete([row.storage_key as StorageKey])
      gone.push(row)
    } catch (error) {
      onFault(error)
    }
  }
  return gone
}
