import type { Database } from '../metadata/database.ts'
import { pruneEvents as pruneBatch } from '../metadata/events.ts'

const BATCH = 1000

/** Removes events older than `retentionMs` in batches. Answers how many. Ends between batches when `signal` fires. */
export async function pruneEvents(db: Database, retentionMs: number, signal?: AbortSignal): Promise<number> {
  let pruned = 0
  for (;;) {
    signal?.throwIfAborted()
    const batch = await db.transaction(tx => pruneBatch(tx, retentionMs, BATCH))
    pruned += batch
    if (batch < BATCH) return pruned
  }
}
