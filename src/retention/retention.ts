import { setTimeout as delay } from 'node:timers/promises'
import { isAnythingDue, pruneRuns } from '../metadata/retention-runs.ts'
import { planRun } from './plan-run.ts'
import { removePlanned } from './remove-run.ts'
import { startDueRuns } from './schedule.ts'
import { type RetentionContext, workOffRun } from './work.ts'

/**
 * Starts the runs that are due and works off those that wait, until none is left: a background job, in any number of
 * processes. Ends by an error when `signal` fires; what is committed stays done, and the rest is gone on with later.
 */
export async function retain(context: RetentionContext, signal: AbortSignal): Promise<void> {
  if (!(await isAnythingDue(context.db))) return
  await startDueRuns(context.db)
  while (await workOffRun(context, [planRun, removePlanned], signal)) signal.throwIfAborted()
}

const PAUSE_MS = 100

/** Removes what is kept of runs older than `ageMs`, slowly. Ends between batches when `signal` fires. */
export async function forgetRuns({ db }: RetentionContext, ageMs: number, signal: AbortSignal): Promise<void> {
  while (await db.transaction(tx => pruneRuns(tx, ageMs))) await delay(PAUSE_MS, undefined, { signal })
}
