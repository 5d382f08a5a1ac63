import type { Database } from '../metadata/database.ts'
import { pruneTagHistory as pruneBatch } from '../metadata/tag-history.ts'

const BATCH = 1000

/** Removes history of tags older than `retentionMs` in batches. Answers how many entries. Ends between batches when `signal` fires. */
export async function pruneTagHistory(db: Database, retentionMs: number, signal?: AbortSignal): Promise<number> {
  let pruned = 0
  for (;;) {
    signal?.throwIfAborted()
    const batch = await db.transaction(tx => pruneBatch(tx, retentionMs, BATCH))
    pruned += batch
    if (batch < BATCH) return pruned
  }
}
