import type { Database, Queryable, Transaction } from './database.ts'
import { addToLimit, claimBlobs, giveBack, insertSlots } from './quota-slots.ts'

/** A limit on what the repositories of a pattern use together, in bytes. */
export interface QuotaRow {
  readonly id: number
  readonly pattern: string
  readonly regex: string
  readonly measure: 'logical' | 'physical'
  readonly limit_bytes: number
  readonly used_bytes: number
  /** Null while what was there before the quota is being counted. */
  readonly counted_at: Date | null
  readonly created_at: Date
  readonly created_by: string | null
}

const SELECT = `select q.id, q.pattern, q.regex, q.measure, q.limit_bytes, q.counted_at, q.created_at, q.created_by,
       q.limit_bytes - coalesce((select sum(free) from quota_slot where quota_id = q.id), 0)::bigint as used_bytes
  from quota q`

/** Quotas in the order of their pattern and measure, after that one. */
export async function listQuotas(
  db: Queryable,
  after: { readonly pattern: string; readonly measure: string },
  limit: number,
): Promise<readonly QuotaRow[]> {
  return await db.query<QuotaRow>(
    `${SELECT} where (q.pattern, q.measure) > ($1, $2) order by q.pattern, q.measure limit $3`,
    [after.pattern, after.measure, limit],
  )
}

/** Every quota, in the same order. */
export async function allQuotas(db: Queryable): Promise<readonly QuotaRow[]> {
  return await db.query<QuotaRow>(`${SELECT} order by q.pattern, q.measure`)
}

/** The quota of that pattern and measure. */
export async function findQuota(db: Queryable, pattern: string, measure: string): Promise<QuotaRow | undefined> {
  return (await db.query<QuotaRow>(`${SELECT} where q.pattern = $1 and q.measure = $2`, [pattern, measure]))[0]
}

/**
 * Sets a limit. A quota that is new has to be counted ({@link countQuota}) once this is committed. Waits for repositories
 * that are being made, which would not see it.
 */
export async function putQuota(
  tx: Transaction,
  quota: Pick<QuotaRow, 'pattern' | 'regex' | 'measure' | 'limit_bytes' | 'created_by'>,
): Promise<void> {
  await tx.query(`select pg_advisory_xact_lock(hashtextextended('quotas', 0))`)
  const [old] = await tx.query<{ id: number; limit_bytes: number }>(
    'select id, limit_bytes from quota where pattern = $1 and measure = $2 for no key update',
    [quota.pattern, quota.measure],
  )
  if (old !== undefined) {
    await addToLimit(tx, old.id, quota.limit_bytes - old.limit_bytes)
    await tx.query('update quota set limit_bytes = $2 where id = $1', [old.id, quota.limit_bytes])
    return
  }
  const [made] = await tx.query<{ id: number }>(
    `insert into quota (pattern, regex, measure, limit_bytes, created_by) values ($1, $2, $3, $4, $5) returning id`,
    [quota.pattern, quota.regex, quota.measure, quota.limit_bytes, quota.created_by],
  )
  if (made === undefined) throw new Error('the quota was not inserted')
  await insertSlots(tx, made.id, quota.limit_bytes)
}

/**
 * Removes a quota: it holds nobody up from then on. False when there is none. Repositories forget it as they are checked,
 * and {@link removeQuotaRests} removes what was counted for it.
 */
export async function deleteQuota(tx: Transaction, pattern: string, measure: string): Promise<boolean> {
  const rows = await tx.query('delete from quota where pattern = $1 and measure = $2 returning id', [pattern, measure])
  return rows.length === 1
}

/**
 * Removes up to `limit` rows of what was counted for quotas that are gone, but none that somebody holds; answers how many.
 * Which quotas have rows is found by one look-up for each.
 */
export async function removeQuotaRests(tx: Transaction, limit: number): Promise<number> {
  let removed = 0
  for (const [table, key] of [
    ['quota_blob', 'blob_id'],
    ['quota_slot', 'slot'],
  ] as const) {
    const rows = await tx.query(
      `with recursive counted as (
         select min(quota_id) as id from ${table}
         union all
         select (select min(quota_id) from ${table} where quota_id > c.id) from counted c where c.id is not null),
       gone as materialized (
         select id from counted c where id is not null and not exists (select from quota q where q.id = c.id)),
       rest as (
         select t.quota_id, t.${key} as key from gone cross join lateral (
           select quota_id, ${key} from ${table} where quota_id = gone.id limit $1 for update skip locked) t limit $1)
       delete from ${table} t using rest where t.quota_id = rest.quota_id and t.${key} = rest.key returning 1 as one`,
      [limit],
    )
    removed += rows.length
  }
  return removed
}

/** Keeps quotas from being made until the transaction ends, so that a new repository sees all that count it. */
export async function holdQuotas(tx: Transaction): Promise<void> {
  await tx.query(`select pg_advisory_xact_lock_shared(hashtextextended('quotas', 0))`)
}

const BATCH = 20

/**
 * Counts what was there before quotas were made, in batches of repositories that are locked for the moment of their
 * counting. Those that were never counted themselves are passed over, or what ends to count there would be given back though
 * it was never added; the quota is counted by a later call. Repeating it, and several at once, do no harm; one that was broken off goes on where it was.
 */
export async function countQuotas(db: Database, signal?: AbortSignal): Promise<void> {
  const uncounted = await db.query<{ id: number; regex: string; measure: string }>(
    'select id, regex, measure from quota where counted_at is null order by id',
  )
  for (const quota of uncounted) {
    let last = 0
    for (;;) {
      signal?.throwIfAborted()
      const batch = await db.transaction(tx => countBatch(tx, quota, last))
      const end = batch.at(-1)
      if (end === undefined) break
      last = end
    }
    await db.transaction(async tx => {
      await tx.query(
        `update quota set counted_at = clock_timestamp() where id = $1
            and not exists (select from repository r left join repository_usage u on u.repository_id = r.id
                             where (u.counted_at is null or not r.quotas @> array[$1::bigint])
                               and r.deleted_at is null and r.name ~ $2)`,
        [quota.id, quota.regex],
      )
    })
  }
}

async function countBatch(
  tx: Transaction,
  quota: { readonly id: number; readonly regex: string; readonly measure: string },
  last: number,
): Promise<readonly number[]> {
  // Whoever changes what a repository uses holds its row, so nothing is under way in these.
  const locked = await tx.query<{ id: number }>(
    `select id from repository r where id > $2 and deleted_at is null and name ~ $3 and not quotas @> array[$1::bigint]
        and exists (select from repository_usage u where u.repository_id = r.id and u.counted_at is not null)
      order by id limit $4 for update of r`,
    [quota.id, last, quota.regex, BATCH],
  )
  const ids = locked.map(row => row.id)
  const present = await tx.query('select id from quota where id = $1 for key share', [quota.id])
  if (present.length === 0) return []
  const entered = await tx.query<{ id: number }>(
    `update repository set quotas = array(select unnest(quotas || $2::bigint) order by 1)
      where id = any($1::bigint[]) and not quotas @> array[$2::bigint] returning id`,
    [ids, quota.id],
  )
  await addRepositories(
    tx,
    entered.map(row => row.id),
    [quota.id],
  )
  return ids
}

/**
 * Adds what locked repositories use to quotas. Changes that quotas have not been told yet will be told to these quotas
 * later: so they are not in what is added here.
 */
async function addRepositories(
  tx: Transaction,
  repositoryIds: readonly number[],
  quotaIds: readonly number[],
): Promise<void> {
  if (repositoryIds.length === 0 || quotaIds.length === 0) return
  const quotas = await tx.query<{ id: number; measure: string }>(
    'select id, measure from quota where id = any($1::bigint[]) order by id',
    [quotaIds],
  )
  const isPhysical = quotas.some(({ measure }) => measure === 'physical')
  const { blobBytes, manifestBytes } = await toldUsage(tx, repositoryIds)
  const links = isPhysical ? await toldLinks(tx, repositoryIds) : []
  for (const { id, measure } of quotas) {
    const blobs = measure === 'physical' ? await claimBlobs(tx, id, links) : blobBytes
    await giveBack(tx, id, -(blobs + manifestBytes))
  }
}

/** What quotas were told that repositories use, in bytes. */
export async function toldUsage(
  tx: Transaction,
  repositoryIds: readonly number[],
): Promise<{ readonly blobBytes: number; readonly manifestBytes: number }> {
  const [row] = await tx.query<{ blobs: number; manifests: number }>(
    `select coalesce(sum(blob_bytes), 0)::bigint as blobs, coalesce(sum(manifest_bytes), 0)::bigint as manifests
       from (select blob_bytes, manifest_bytes from repository_usage where repository_id = any($1::bigint[])
             union all
             select blob_bytes, manifest_bytes from usage_delta where repository_id = any($1::bigint[]) and settled) x`,
    [repositoryIds],
  )
  return { blobBytes: row?.blobs ?? 0, manifestBytes: row?.manifests ?? 0 }
}

async function toldLinks(
  tx: Transaction,
  repositoryIds: readonly number[],
): Promise<readonly { readonly blob_id: number; readonly size: number }[]> {
  return await tx.query(
    `select l.blob_id, b.size from repository_blob l join blob b on b.id = l.blob_id
      where l.repository_id = any($1::bigint[]) and l.counted
     union all
     select blob_id, -blob_bytes from usage_delta
      where repository_id = any($1::bigint[]) and not settled and blob_id is not null`,
    [repositoryIds],
  )
}
