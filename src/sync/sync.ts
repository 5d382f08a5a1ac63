import { setTimeout as delay } from 'node:timers/promises'
import type { Database } from '../metadata/database.ts'
import { insertSyncRun, isSyncWaiting, pruneSyncRuns } from '../metadata/sync-runs.ts'
import {
  isSyncDue,
  listSyncSchedules,
  lockSyncSchedule,
  removeSyncSchedule,
  setSyncSchedule,
} from '../metadata/sync-schedule.ts'
import { nextRun } from '../jobs/cron.ts'
import { type SyncContext, workOffRun } from './work-off.ts'

/**
 * Starts the run of a sync that is due and works off the one that waits: a background job, in any number of processes.
 * Ends by an error when `signal` fires; what was copied stays, and the rest is gone on with later.
 */
export async function runSync(context: SyncContext, signal: AbortSignal): Promise<void> {
  await startDueRun(context)
  if (await isSyncWaiting(context.db, context.sync.name)) await workOffRun(context, signal)
}

/**
 * Asks for a run where the time of a sync has come: once, however many processes look, because who asks moves the time in
 * the same transaction. Times that passed while no process ran are made up for by one run; while a run is under way there
 * is no other.
 */
export async function startDueRun({ db, sync }: Pick<SyncContext, 'db' | 'sync'>): Promise<void> {
  const { name, schedule, timeZone } = sync
  if (schedule === undefined) {
    await forgetSchedule(db, name)
    return
  }
  if (!(await isSyncDue(db, { name, schedule, time_zone: timeZone }))) return
  await db.transaction(async tx => {
    const known = await lockSyncSchedule(tx, name)
    if (known === undefined) return
    const isAsSet = known.schedule === schedule && known.time_zone === timeZone
    if (isAsSet && (known.next_run_at === null || known.next_run_at > known.now)) return
    const next = nextRun({ schedule, timeZone }, known.now)
    await setSyncSchedule(tx, { name, schedule, time_zone: timeZone, next_run_at: next ?? null })
    // A schedule that is new, or was changed, begins with its first time to come.
    if (isAsSet) await insertSyncRun(tx, { name, isDry: false, askedBy: 'schedule' })
  })
}

async function forgetSchedule(db: Database, name: string): Promise<void> {
  const known = await listSyncSchedules(db, [name])
  if (known.length > 0) await db.transaction(tx => removeSyncSchedule(tx, name))
}

const PAUSE_MS = 100

/** Removes what is kept of runs older than `ageMs`, slowly. Ends between batches when `signal` fires. */
export async function forgetSyncRuns(db: Database, ageMs: number, signal: AbortSignal): Promise<void> {
  while (await db.transaction(tx => pruneSyncRuns(tx, ageMs))) await delay(PAUSE_MS, undefined, { signal })
}
