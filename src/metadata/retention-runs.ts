import type { Queryable, Transaction } from './database.ts'
import type { PolicyRow } from './retention-policies.ts'

/** A plan and what came of it. */
export interface RunRow {
  readonly id: number
  readonly policy_id: number | null
  readonly policy: string
  readonly policy_revision: number
  readonly pattern: string
  /** Whether it ends with the plan, until somebody confirms it. */
  readonly goal: 'plan' | 'run'
  readonly state: 'waiting' | 'asks' | 'done' | 'failed'
  readonly is_confirmed: boolean
  readonly asked_by: string
  readonly created_at: Date
  readonly finished_at: Date | null
  readonly cursor: string
  readonly is_planned: boolean
  readonly epoch: number
  readonly error: string | null
}

const COLUMNS = `id, policy_id, policy, policy_revision, pattern, goal, state, is_confirmed, asked_by, created_at, finished_at,
       cursor, is_planned, epoch, error`

/** Asks for a run of a policy; answers its id. */
export async function insertRun(
  tx: Transaction,
  policy: Pick<PolicyRow, 'id' | 'name' | 'revision' | 'pattern'>,
  run: { readonly goal: RunRow['goal']; readonly isConfirmed: boolean; readonly askedBy: string },
): Promise<number> {
  const rows = await tx.query<{ id: number }>(
    `insert into retention_run (policy_id, policy, policy_revision, pattern, goal, state, is_confirmed, asked_by)
     values ($1, $2, $3, $4, $5, 'waiting', $6, $7) returning id`,
    [policy.id, policy.name, policy.revision, policy.pattern, run.goal, run.isConfirmed, run.askedBy],
  )
  const row = rows[0]
  if (row === undefined) throw new Error('the run was not inserted')
  return row.id
}

/** Whether a run of the policy waits or is being worked off. */
export async function hasWaitingRun(tx: Transaction, policyId: number): Promise<boolean> {
  const rows = await tx.query(`select id from retention_run where state = 'waiting' and policy_id = $1 limit 1`, [
    policyId,
  ])
  return rows.length > 0
}

/** Whether a run waits for a worker, or a policy's time has come: one cheap look, because it is taken all the time. */
export async function isAnythingDue(db: Queryable): Promise<boolean> {
  const rows = await db.query(
    `select 1 as one from retention_run where state = 'waiting' and lease_until < clock_timestamp()
     union all
     select 1 from retention_policy where next_run_at <= clock_timestamp() limit 1`,
  )
  return rows.length > 0
}

/** Takes the oldest waiting run that nobody works on, for `leaseMs`; its epoch is the worker's. */
export async function claimRun(tx: Transaction, leaseMs: number): Promise<RunRow | undefined> {
  const rows = await tx.query<RunRow>(
    `update retention_run set epoch = epoch + 1, lease_until = clock_timestamp() + $1 * interval '1 millisecond'
      where id = (select id from retention_run where state = 'waiting' and lease_until < clock_timestamp()
                   order by id limit 1 for update skip locked)
      returning ${COLUMNS}`,
    [leaseMs],
  )
  return rows[0]
}

/** Holds a run to the end of the transaction and its lease for `leaseMs`. False when another process has taken it over. */
export async function holdRun(tx: Transaction, run: RunRow, leaseMs: number): Promise<boolean> {
  const rows = await tx.query(
    `update retention_run set lease_until = clock_timestamp() + $3 * interval '1 millisecond'
      where id = $1 and epoch = $2 and state = 'waiting' returning id`,
    [run.id, run.epoch, leaseMs],
  )
  return rows.length === 1
}

/** Lets the next process go on with a run at once. */
export async function releaseRun(tx: Transaction, run: RunRow): Promise<void> {
  await tx.query(`update retention_run set lease_until = '-infinity' where id = $1 and epoch = $2`, [run.id, run.epoch])
}

/** Remembers how far planning has got: to the repository of that name, or through all. */
export async function setPlanned(tx: Transaction, runId: number, to: { cursor: string } | 'all'): Promise<void> {
  if (to === 'all') await tx.query('update retention_run set is_planned = true where id = $1', [runId])
  else await tx.query('update retention_run set cursor = $2 where id = $1', [runId, to.cursor])
}

/** Ends a run: where a repository is held and something would go, it asks, and otherwise it is done. */
export async function finishRun(tx: Transaction, runId: number): Promise<void> {
  await tx.query(
    `update retention_run
        set state = case when exists (select from retention_repository
                                       where run_id = $1 and is_held and (going > 0 or untagged > 0))
                         then 'asks' else 'done' end,
            finished_at = clock_timestamp()
      where id = $1`,
    [runId],
  )
}

/** Ends a run with why it could not go on. */
export async function failRun(tx: Transaction, run: Pick<RunRow, 'id' | 'epoch'>, why: string): Promise<void> {
  await tx.query(
    `update retention_run set state = 'failed', error = $3, finished_at = clock_timestamp()
      where id = $1 and epoch = $2 and state = 'waiting'`,
    [run.id, run.epoch, why],
  )
}

/** Lets a run that asks go on with all that it held. False when it asks nothing. */
export async function confirmRun(tx: Transaction, id: number): Promise<boolean> {
  const rows = await tx.query(
    `update retention_run set state = 'waiting', is_confirmed = true, finished_at = null, lease_until = '-infinity'
      where id = $1 and state = 'asks' returning id`,
    [id],
  )
  if (rows.length === 1) await tx.query('update retention_repository set is_held = false where run_id = $1', [id])
  return rows.length === 1
}

/** What came of a run in all. */
export interface RunTotals {
  readonly repositories: number
  readonly tags: number
  readonly going: number
  readonly untagged: number
  readonly removed: number
  readonly spared: number
  /** Repositories that are held until somebody confirms. */
  readonly held: number
}

/** A run with its totals. */
export type RunWithTotals = RunRow & RunTotals

const WITH_TOTALS = `select ${COLUMNS}, t.* from retention_run r
  cross join lateral (
    select count(*) as repositories, coalesce(sum(tags), 0)::bigint as tags, coalesce(sum(going), 0)::bigint as going,
           coalesce(sum(untagged), 0)::bigint as untagged, coalesce(sum(removed), 0)::bigint as removed,
           coalesce(sum(spared), 0)::bigint as spared,
           count(*) filter (where is_held and (going > 0 or untagged > 0)) as held
      from retention_repository where run_id = r.id) t`

/** The run of that id. */
export async function findRun(db: Queryable, id: number): Promise<RunWithTotals | undefined> {
  return (await db.query<RunWithTotals>(`${WITH_TOTALS} where r.id = $1`, [id]))[0]
}

/** Runs of one policy, or of all, newest first, before `beforeId` (where given). */
export async function listRuns(
  db: Queryable,
  policy: string | undefined,
  beforeId: number | undefined,
  limit: number,
): Promise<readonly RunWithTotals[]> {
  return await db.query<RunWithTotals>(
    `${WITH_TOTALS} where ($1::text is null or r.policy = $1) and ($2::bigint is null or r.id < $2)
      order by r.id desc limit $3`,
    [policy ?? null, beforeId ?? null, limit],
  )
}

const ITEMS_OF_ONE_DELETE = 5_000

/** Removes runs older than `ageMs`, their items first, a batch in each call. False when nothing is left to remove. */
export async function pruneRuns(tx: Transaction, ageMs: number): Promise<boolean> {
  const old = await tx.query<{ id: number }>(
    `select id from retention_run where created_at < clock_timestamp() - $1 * interval '1 millisecond'
      order by created_at limit 1 for update skip locked`,
    [ageMs],
  )
  const [run] = old
  if (run === undefined) return false
  const items = await tx.query(
    `delete from retention_item where ctid = any (array(select ctid from retention_item where run_id = $1 limit $2))
     returning 1 as one`,
    [run.id, ITEMS_OF_ONE_DELETE],
  )
  if (items.length < ITEMS_OF_ONE_DELETE) await tx.query('delete from retention_run where id = $1', [run.id])
  return true
}
