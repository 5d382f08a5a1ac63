import type { Database } from '../metadata/database.ts'
import { pruneEvents as pruneBatch } from '../metadata/events.ts'
import { inBatches } from './in-batches.ts'

const BATCH = 1000

/** Removes events older than `retentionMs` in batches. Answers how many. Ends between batches when `signal` fires. */
export async function pruneEvents(db: Database, retentionMs: number, signal?: AbortSignal): Promise<number> {
  return await inBatches(db, BATCH, (tx, limit) => pruneBatch(tx, retentionMs, limit), signal)
}
