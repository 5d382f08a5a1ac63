import type { Database } from '../metadata/database.ts'
import { discardExpiredUploads } from '../metadata/uploads.ts'

const BATCH = 100
/** A writer that lost its lease stops well within this. */
const GRACE_MS = 60_000

/**
 * Ends upload sessions nobody came back to; their bytes go to the trash. Answers how many. Ends between batches, by an
 * error, when `signal` fires.
 */
export async function expireUploads(db: Database, signal?: AbortSignal): Promise<number> {
  let expired = 0
  for (;;) {
    signal?.throwIfAborted()
    const batch = await db.transaction(tx => discardExpiredUploads(tx, BATCH, GRACE_MS))
    expired += batch
    if (batch < BATCH) return expired
  }
}
