import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Queryable, Transaction } from './database.ts'

/** What a run found in one repository, and did. */
export interface RunRepositoryRow {
  readonly repository_id: number
  readonly name: RepositoryName
  readonly planned_at: Date
  /** All tags, tags that go, and untagged manifests that go. */
  readonly tags: number
  readonly going: number
  readonly untagged: number
  readonly removed: number
  /** What was to go and stayed, because something had changed since the plan. */
  readonly spared: number
  readonly is_held: boolean
}

const COLUMNS = 'repository_id, name, planned_at, tags, going, untagged, removed, spared, is_held'

/** Keeps what was planned for a repository. */
export async function insertRunRepository(
  tx: Transaction,
  runId: number,
  row: Omit<RunRepositoryRow, 'removed' | 'spared'>,
): Promise<void> {
  await tx.query(
    `insert into retention_repository (run_id, repository_id, name, planned_at, tags, going, untagged, is_held)
     values ($1, $2, $3, $4, $5, $6, $7, $8)`,
    [runId, row.repository_id, row.name, row.planned_at, row.tags, row.going, row.untagged, row.is_held],
  )
}

/** The next repository of a run that is not held and not done. */
export async function nextRunRepository(db: Queryable, runId: number): Promise<RunRepositoryRow | undefined> {
  const rows = await db.query<RunRepositoryRow>(
    `select ${COLUMNS} from retention_repository where run_id = $1 and not is_held and not is_done
      order by repository_id limit 1`,
    [runId],
  )
  return rows[0]
}

/** Repositories of a run by their ids, after `last`. */
export async function listRunRepositories(
  db: Queryable,
  runId: number,
  last: number,
  limit: number,
): Promise<readonly RunRepositoryRow[]> {
  return await db.query<RunRepositoryRow>(
    `select ${COLUMNS} from retention_repository where run_id = $1 and repository_id > $2 order by repository_id limit $3`,
    [runId, last, limit],
  )
}

/** Says that a run is through with a repository. */
export async function setRepositoryDone(tx: Transaction, runId: number, repositoryId: number): Promise<void> {
  await tx.query('update retention_repository set is_done = true where run_id = $1 and repository_id = $2', [
    runId,
    repositoryId,
  ])
}

/** A tag, or an untagged manifest by its digest, and what becomes of it. */
export interface ItemRow {
  readonly name: string
  readonly digest: Digest
  readonly goes: boolean
  readonly rule: number | null
  readonly reason: string
  readonly outcome: 'removed' | 'spared' | null
}

/** Keeps verdicts. */
export async function insertItems(
  tx: Transaction,
  runId: number,
  repositoryId: number,
  items: readonly Pick<ItemRow, 'name' | 'digest' | 'goes' | 'rule' | 'reason'>[],
): Promise<void> {
  await tx.query(
    `insert into retention_item (run_id, repository_id, name, digest, goes, rule, reason)
     select $1, $2, * from unnest($3::text[], $4::text[], $5::bool[], $6::int[], $7::text[])`,
    [
      runId,
      repositoryId,
      items.map(item => item.name),
      items.map(item => item.digest),
      items.map(item => item.goes),
      items.map(item => item.rule),
      items.map(item => item.reason),
    ],
  )
}

/** The next items of a repository that are to go and that nothing has come of yet. */
export async function nextItems(
  tx: Transaction,
  runId: number,
  repositoryId: number,
  limit: number,
): Promise<readonly ItemRow[]> {
  return await tx.query<ItemRow>(
    `select name, digest, goes, rule, reason, outcome from retention_item
      where run_id = $1 and repository_id = $2 and goes and outcome is null order by name limit $3`,
    [runId, repositoryId, limit],
  )
}

/** What came of an item. */
export interface ItemOutcome {
  readonly name: string
  readonly outcome: 'removed' | 'spared'
  /** Why it stayed, where it did. */
  readonly reason: string
}

/** Keeps what came of items, and adds it up. */
export async function setOutcomes(
  tx: Transaction,
  runId: number,
  repositoryId: number,
  outcomes: readonly ItemOutcome[],
): Promise<void> {
  await tx.query(
    `update retention_item i set outcome = o.outcome, reason = o.reason
       from unnest($3::text[], $4::text[], $5::text[]) as o (name, outcome, reason)
      where i.run_id = $1 and i.repository_id = $2 and i.name = o.name`,
    [runId, repositoryId, outcomes.map(o => o.name), outcomes.map(o => o.outcome), outcomes.map(o => o.reason)],
  )
  const removed = outcomes.filter(({ outcome }) => outcome === 'removed').length
  await tx.query(
    `update retention_repository set removed = removed + $3, spared = spared + $4
      where run_id = $1 and repository_id = $2`,
    [runId, repositoryId, removed, outcomes.length - removed],
  )
}

/** Where a page of items ends. */
export interface ItemKey {
  readonly repositoryId: number
  readonly name: string
}

/** Items of a run with their repositories, by repository and name; only those that are to go, where asked. */
export async function listItems(
  db: Queryable,
  runId: number,
  of: { readonly onlyGoing: boolean },
  after: ItemKey,
  limit: number,
): Promise<readonly (ItemRow & { readonly repository_id: number; readonly repository: string })[]> {
  return await db.query<ItemRow & { repository_id: number; repository: string }>(
    `select i.repository_id, r.name as repository, i.name, i.digest, i.goes, i.rule, i.reason, i.outcome
       from retention_item i join retention_repository r on r.run_id = i.run_id and r.repository_id = i.repository_id
      where i.run_id = $1 and (i.goes or not $2) and (i.repository_id, i.name) > ($3, $4)
      order by i.repository_id, i.name limit $5`,
    [runId, of.onlyGoing, after.repositoryId, after.name, limit],
  )
}
