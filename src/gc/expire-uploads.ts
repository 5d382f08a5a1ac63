import type { Database } from '../metadata/database.ts'
import { discardExpiredUploads } from '../metadata/uploads.ts'
import { inBatches } from './in-batches.ts'

const BATCH = 100
/** A writer that lost its lease stops well within this. */
const GRACE_MS = 60_000

/**
 * Ends upload sessions nobody came back to; their bytes go to the trash. Answers how many. Ends between batches, by an
 * error, when `signal` fires.
 */
export async function expireUploads(db: Database, signal?: AbortSignal): Promise<number> {
  return await inBatches(db, BATCH, (tx, limit) => discardExpiredUploads(tx, limit, GRACE_MS), signal)
}
