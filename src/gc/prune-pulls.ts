import { setTimeout as delay } from 'node:timers/promises'
import type { Database } from '../metadata/database.ts'
import { PRUNE_START, prunePulls } from '../metadata/pulls.ts'

const BATCH = 1000
const PAUSE_MS = 100

/** Removes pull counts of what has long been gone, slowly: batch by batch. Ends between batches when `signal` fires. */
export async function prunePullCounts(db: Database, signal?: AbortSignal): Promise<void> {
  let at = await prunePulls(db, PRUNE_START, BATCH)
  while (at !== undefined) {
    await delay(PAUSE_MS, undefined, { signal })
    at = await prunePulls(db, at, BATCH)
  }
}
