import type { Queryable, Transaction } from './database.ts'

/** A run of a sync. */
export interface SyncRunRow {
  readonly id: number
  /** Of the sync. */
  readonly name: string
  /** Whether it only looks what it would do. */
  readonly is_dry: boolean
  readonly state: 'waiting' | 'done' | 'failed' | 'stopped'
  readonly asked_by: string
  readonly created_at: Date
  readonly finished_at: Date | null
  /** The repository whose tags were listed last, and whether all were. */
  readonly cursor: string
  readonly is_listed: boolean
  readonly epoch: number
  readonly error: string | null
}

const COLUMNS = `id, name, is_dry, state, asked_by, created_at, finished_at, cursor, is_listed, epoch, error`

/** Asks for a run; answers its id. Undefined where one of this sync waits or is under way. */
export async function insertSyncRun(
  tx: Transaction,
  run: { readonly name: string; readonly isDry: boolean; readonly askedBy: string },
): Promise<number | undefined> {
  const rows = await tx.query<{ id: number }>(
    `insert into sync_run (name, is_dry, state, asked_by) values ($1, $2, 'waiting', $3)
     on conflict (name) where state = 'waiting' do nothing returning id`,
    [run.name, run.isDry, run.askedBy],
  )
  return rows[0]?.id
}

/** Whether a run of a sync waits for a worker: one cheap look, because it is taken all the time. */
export async function isSyncWaiting(db: Queryable, name: string): Promise<boolean> {
  const rows = await db.query(
    `select id from sync_run where name = $1 and state = 'waiting' and lease_until < clock_timestamp()`,
    [name],
  )
  return rows.length > 0
}

/**
 * Takes the waiting run of a sync for `leaseMs`, where nobody works on it or still ends one that was stopped; its epoch
 * is the worker's.
 */
export async function claimSyncRun(tx: Transaction, name: string, leaseMs: number): Promise<SyncRunRow | undefined> {
  const rows = await tx.query<SyncRunRow>(
    `update sync_run set epoch = epoch + 1, lease_until = clock_timestamp() + $2 * interval '1 millisecond'
      where id = (select id from sync_run r
                   where name = $1 and state = 'waiting' and lease_until < clock_timestamp()
                     and not exists (select from sync_run o
                                      where o.name = $1 and o.id <> r.id and o.lease_until > clock_timestamp())
                     for update skip locked)
      returning ${COLUMNS}`,
    [name, leaseMs],
  )
  return rows[0]
}

/** A run that a worker has claimed. */
export type HeldSyncRun = Pick<SyncRunRow, 'id' | 'epoch'>

/** Holds a run to the end of the transaction and its lease for `leaseMs`. False when it was stopped, or taken over. */
export async function holdSyncRun(tx: Transaction, run: HeldSyncRun, leaseMs: number): Promise<boolean> {
  const rows = await tx.query(
    `update sync_run set lease_until = clock_timestamp() + $3 * interval '1 millisecond'
      where id = $1 and epoch = $2 and state = 'waiting' returning id`,
    [run.id, run.epoch, leaseMs],
  )
  return rows.length === 1
}

/** Says that its worker has let go of a run: the next may go on with it, or with the next run, at once. */
export async function releaseSyncRun(tx: Transaction, run: HeldSyncRun): Promise<void> {
  await tx.query(`update sync_run set lease_until = '-infinity' where id = $1 and epoch = $2`, [run.id, run.epoch])
}

/** Gives up every lease: only for who knows that no other process works on this index. */
export async function releaseAllSyncRuns(tx: Transaction): Promise<void> {
  await tx.query(`update sync_run set lease_until = '-infinity' where lease_until > '-infinity'`)
}

/** Remembers how far listing has got: to the repository of that name, or through all. */
export async function setListed(
  tx: Transaction,
  runId: number,
  to: { readonly cursor: string } | 'all',
): Promise<void> {
  if (to === 'all') await tx.query('update sync_run set is_listed = true where id = $1', [runId])
  else await tx.query('update sync_run set cursor = $2 where id = $1', [runId, to.cursor])
}

/** Ends a run: done, or failed with why it could not go on. */
export async function endSyncRun(tx: Transaction, run: HeldSyncRun, error?: string): Promise<void> {
  await tx.query(
    `update sync_run set state = $3, error = $4, finished_at = clock_timestamp(), lease_until = '-infinity'
      where id = $1 and epoch = $2 and state = 'waiting'`,
    [run.id, run.epoch, error === undefined ? 'done' : 'failed', error ?? null],
  )
}

/** Stops the run of a sync that waits or is under way: its worker ends within its next look. Answers its id. */
export async function stopSyncRun(tx: Transaction, name: string): Promise<number | undefined> {
  const rows = await tx.query<{ id: number }>(
    `update sync_run set state = 'stopped', finished_at = clock_timestamp()
      where name = $1 and state = 'waiting' returning id`,
    [name],
  )
  return rows[0]?.id
}

/** How far a run has come. */
export interface SyncTotals {
  readonly is_running: boolean
  readonly images: number
  readonly copied: number
  readonly up_to_date: number
  readonly to_copy: number
  readonly skipped: number
  readonly failed: number
  readonly bytes: number
}

/** A run with its totals. */
export type SyncRunWithTotals = SyncRunRow & SyncTotals

const WITH_TOTALS = `select ${COLUMNS}, lease_until > clock_timestamp() and state = 'waiting' as is_running, t.*
  from sync_run r cross join lateral (
    select count(*) as images, coalesce(sum(bytes), 0)::bigint as bytes,
           count(*) filter (where outcome = 'copied') as copied,
           count(*) filter (where outcome = 'up-to-date') as up_to_date,
           count(*) filter (where outcome = 'to-copy') as to_copy,
           count(*) filter (where outcome = 'skipped') as skipped,
           count(*) filter (where outcome = 'failed') as failed
      from sync_item where run_id = r.id) t`

/** The run of that id. */
export async function findSyncRun(db: Queryable, id: number): Promise<SyncRunWithTotals | undefined> {
  return (await db.query<SyncRunWithTotals>(`${WITH_TOTALS} where r.id = $1`, [id]))[0]
}

/** Runs of one sync, or of all, newest first, before `beforeId` (where given). */
export async function listSyncRuns(
  db: Queryable,
  name: string | undefined,
  beforeId: number | undefined,
  limit: number,
): Promise<readonly SyncRunWithTotals[]> {
  return await db.query<SyncRunWithTotals>(
    `${WITH_TOTALS} where ($1::text is null or r.name = $1) and ($2::bigint is null or r.id < $2)
      order by r.id desc limit $3`,
    [name ?? null, beforeId ?? null, limit],
  )
}

const ITEMS_OF_ONE_DELETE = 5_000

/** Removes runs older than `ageMs` that are over, their items first, a batch in each call. False when nothing is left to remove. */
export async function pruneSyncRuns(tx: Transaction, ageMs: number): Promise<boolean> {
  const old = await tx.query<{ id: number }>(
    `select id from sync_run
      where created_at < clock_timestamp() - $1 * interval '1 millisecond' and lease_until < clock_timestamp()
      order by created_at limit 1 for update skip locked`,
    [ageMs],
  )
  const [run] = old
  if (run === undefined) return false
  const items = await tx.query(
    `delete from sync_item where ctid = any (array(select ctid from sync_item where run_id = $1 limit $2))
     returning 1 as one`,
    [run.id, ITEMS_OF_ONE_DELETE],
  )
  if (items.length < ITEMS_OF_ONE_DELETE) await tx.query('delete from sync_run where id = $1', [run.id])
  return true
}
