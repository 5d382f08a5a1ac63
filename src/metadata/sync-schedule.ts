import type { Queryable, Transaction } from './database.ts'

/** When a sync runs next. */
export interface SyncScheduleRow {
  readonly name: string
  readonly schedule: string
  readonly time_zone: string
  readonly next_run_at: Date | null
}

/** The schedules that are kept of these syncs. */
export async function listSyncSchedules(db: Queryable, names: readonly string[]): Promise<readonly SyncScheduleRow[]> {
  return await db.query<SyncScheduleRow>(
    `select name, schedule, time_zone, next_run_at from sync_schedule where name = any($1)`,
    [names],
  )
}

/** Whether the time of a sync has come, or its schedule is not kept as it is set: one cheap look. */
export async function isSyncDue(
  db: Queryable,
  sync: Pick<SyncScheduleRow, 'name' | 'schedule' | 'time_zone'>,
): Promise<boolean> {
  const rows = await db.query(
    `select 1 as one from sync_schedule
      where name = $1 and schedule = $2 and time_zone = $3
        and (next_run_at is null or next_run_at > clock_timestamp())`,
    [sync.name, sync.schedule, sync.time_zone],
  )
  return rows.length === 0
}

/** Locks the schedule of a sync, made where there is none, with the database's clock. Undefined where another process holds it. */
export async function lockSyncSchedule(
  tx: Transaction,
  name: string,
): Promise<(SyncScheduleRow & { readonly now: Date }) | undefined> {
  await tx.query(
    `insert into sync_schedule (name, schedule, time_zone) values ($1, '', '') on conflict (name) do nothing`,
    [name],
  )
  const rows = await tx.query<SyncScheduleRow & { now: Date }>(
    `select name, schedule, time_zone, next_run_at, clock_timestamp() as now from sync_schedule
      where name = $1 for update skip locked`,
    [name],
  )
  return rows[0]
}

/** Sets when a sync runs next. */
export async function setSyncSchedule(tx: Transaction, row: SyncScheduleRow): Promise<void> {
  await tx.query('update sync_schedule set schedule = $2, time_zone = $3, next_run_at = $4 where name = $1', [
    row.name,
    row.schedule,
    row.time_zone,
    row.next_run_at,
  ])
}

/** Forgets the schedule of a sync that has none any more. */
export async function removeSyncSchedule(tx: Transaction, name: string): Promise<void> {
  await tx.query('delete from sync_schedule where name = $1', [name])
}
