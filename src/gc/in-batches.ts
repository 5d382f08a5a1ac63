import type { Database, Transaction } from '../metadata/database.ts'

/**
 * Runs `work` in transactions of its own until one finds less than `limit` to do; answers how much it did in all. Ends
 * between batches, by an error, when `signal` fires.
 */
export async function inBatches(
  db: Database,
  limit: number,
  work: (tx: Transaction, limit: number) => Promise<number>,
  signal?: AbortSignal,
): Promise<number> {
  let done = 0
  for (;;) {
    signal?.throwIfAborted()
    const batch = await db.transaction(tx => work(tx, limit))
    done += batch
    if (batch < limit) return done
  }
}
