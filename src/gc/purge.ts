import type { Database } from '../metadata/database.ts'
import { beginPurge, endPurge } from '../metadata/trash.ts'
import type { BlobStore, StorageKey, WriteState } from '../storage/blob-store.ts'

const BATCH = 100

/**
 * Deletes bytes that committed transactions gave up and whose grace is over: first `purging_at` is committed, then the
 * bytes go, then the row. A crash between the steps repeats them. Answers how many keys went. Ends between batches, by an
 * error, when `signal` fires.
 */
export async function purgeTrash(db: Database, store: BlobStore, signal?: AbortSignal): Promise<number> {
  let purged = 0
  for (;;) {
    signal?.throwIfAborted()
    const due = await db.transaction(tx => beginPurge(tx, store.name, BATCH))
    if (due.length === 0) return purged
    for (const row of due) {
      if (row.state !== null) await store.abort(row.state as WriteState)
    }
    const keys = due.map(row => row.storage_key)
    await store.delete(keys as StorageKey[])
    await db.transaction(tx => endPurge(tx, store.name, keys))
    purged += due.length
  }
}
