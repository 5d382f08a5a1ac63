import type { Database } from '../metadata/database.ts'
import { pruneTagHistory as pruneBatch } from '../metadata/tag-history.ts'
import { inBatches } from './in-batches.ts'

const BATCH = 1000

/** Removes history of tags older than `retentionMs` in batches. Answers how many entries. Ends between batches when `signal` fires. */
export async function pruneTagHistory(db: Database, retentionMs: number, signal?: AbortSignal): Promise<number> {
  return await inBatches(db, BATCH, (tx, limit) => pruneBatch(tx, retentionMs, limit), signal)
}
