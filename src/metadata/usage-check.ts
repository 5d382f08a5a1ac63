import type { Queryable, Transaction } from './database.ts'
import { giveBack } from './quota-slots.ts'
import { insertReleases } from './usage.ts'

// The slow comparison of counters with what they count. Each is one statement, whose snapshot has a change together with
// what was noted of it, so that nobody is locked out; and a repair is a change like any other.

const RETRY_MS = 60 * 60_000

/** What was counted wrongly in a repository: truth less counters. All 0: nothing. */
export interface Drift {
  readonly repository: string
  readonly blobs: number
  readonly blob_bytes: number
  readonly manifests: number
  readonly manifest_bytes: number
  readonly tags: number
  /** Links that a visible manifest names and that did not count. */
  readonly uncounted: number
}

/** Gives counters to living repositories that have none, because a program of before them made the repository. */
export async function insertMissingCounters(tx: Transaction): Promise<void> {
  await tx.query(
    `insert into repository_usage (repository_id)
     select id from repository r where deleted_at is null
        and not exists (select from repository_usage u where u.repository_id = r.id)
     on conflict do nothing`,
  )
}

/** Locks the counters that were not checked for longest, if that is longer than `ageMs`; answers their living repository, and whether it was ever counted. */
export async function lockUnchecked(
  tx: Transaction,
  ageMs: number,
): Promise<{ readonly repositoryId: number; readonly isCounted: boolean } | undefined> {
  const [row] = await tx.query<{ repository_id: number; is_counted: boolean }>(
    `select repository_id, counted_at is not null as is_counted from repository_usage u
      where coalesce(checked_at < clock_timestamp() - $1 * interval '1 millisecond', true)
        and exists (select from repository r where r.id = u.repository_id and r.deleted_at is null)
      order by checked_at nulls first limit 1 for update skip locked`,
    [ageMs],
  )
  return row && { repositoryId: row.repository_id, isCounted: row.is_counted }
}

/** Lets a repository whose check failed be the next to check in an hour, or in `ageMs` where that is less. */
export async function deferCheck(tx: Transaction, repositoryId: number, ageMs: number): Promise<void> {
  await tx.query(
    `update repository_usage set checked_at = clock_timestamp() - $2 * interval '1 millisecond'
      where repository_id = $1`,
    [repositoryId, Math.max(ageMs - RETRY_MS, 0)],
  )
}

/** Compares the locked counters of a repository with its rows, repairs them, and keeps the day's figures. Answers the drift. */
export async function checkRepository(tx: Transaction, repositoryId: number): Promise<Drift> {
  const uncounted = await countNamedLinks(tx, repositoryId)
  const [drift] = await tx.query<Omit<Drift, 'uncounted'>>(
    `select r.name as repository, l.blobs - u.blobs - d.blobs as blobs, l.bytes - u.blob_bytes - d.blob_bytes as blob_bytes,
            m.manifests - u.manifests - d.manifests as manifests,
            m.bytes - u.manifest_bytes - d.manifest_bytes as manifest_bytes, t.tags - u.tags - d.tags as tags
       from repository r join repository_usage u on u.repository_id = r.id
      cross join (select count(*) as blobs, coalesce(sum(b.size), 0)::bigint as bytes
                    from repository_blob l join blob b on b.id = l.blob_id
                   where l.repository_id = $1 and l.counted) l
      cross join (select count(*) as manifests, coalesce(sum(size), 0)::bigint as bytes
                    from manifest where repository_id = $1 and deleted_at is null) m
      cross join (select count(*) as tags from tag where repository_id = $1) t
      cross join (select coalesce(sum(blobs), 0)::bigint as blobs, coalesce(sum(blob_bytes), 0)::bigint as blob_bytes,
                         coalesce(sum(manifests), 0)::bigint as manifests,
                         coalesce(sum(manifest_bytes), 0)::bigint as manifest_bytes,
                         coalesce(sum(tags), 0)::bigint as tags
                    from usage_delta where repository_id = $1) d
      where r.id = $1`,
    [repositoryId],
  )
  if (drift === undefined) throw new Error('the counters of a repository lie beside it')
  const { blobs, blob_bytes: blobBytes, manifests, manifest_bytes: manifestBytes, tags } = drift
  if ([blobs, blobBytes, manifests, manifestBytes, tags].some(value => value !== 0)) {
    await tx.query(
      `insert into usage_delta (repository_id, blobs, blob_bytes, manifests, manifest_bytes, tags, settled)
       values ($1, $2, $3, $4, $5, $6, false)`,
      [repositoryId, blobs, blobBytes, manifests, manifestBytes, tags],
    )
  }
  await keepDay(tx, repositoryId)
  await tx.query(
    `update repository_usage set checked_at = clock_timestamp(), counted_at = coalesce(counted_at, clock_timestamp())
      where repository_id = $1`,
    [repositoryId],
  )
  return { ...drift, uncounted }
}

const NAMED = `exists (select from manifest_blob e join manifest m on m.id = e.manifest_id
                        where e.repository_id = l.repository_id and e.digest = l.digest and m.deleted_at is null)`

/**
 * Ends the counting of links that only deleted manifests name, in a repository that was never counted: until then every
 * link counts.
 */
export async function discountHiddenLinks(tx: Transaction, repositoryId: number): Promise<void> {
  const hidden = `l.counted and not ${NAMED}
    and exists (select from manifest_blob e where e.repository_id = l.repository_id and e.digest = l.digest)`
  // Locked first, against pushes that are about to name them, and judged by a later statement.
  const found = await tx.query<{ blob_id: number }>(
    `select l.blob_id from repository_blob l where l.repository_id = $1 and ${hidden} order by l.blob_id for update`,
    [repositoryId],
  )
  if (found.length === 0) return
  const links = await tx.query<{ repository_id: number; blob_id: number; size: number }>(
    `update repository_blob l set counted = false from blob b
      where l.repository_id = $1 and l.blob_id = any($2::bigint[]) and b.id = l.blob_id and ${hidden}
     returning l.repository_id, l.blob_id, b.size`,
    [repositoryId, found.map(row => row.blob_id)],
  )
  await insertReleases(tx, links)
}

/** Lets links count that a visible manifest names; answers how many did not. */
async function countNamedLinks(tx: Transaction, repositoryId: number): Promise<number> {
  const found = await tx.query<{ blob_id: number }>(
    `select l.blob_id from repository_blob l
      where l.repository_id = $1 and not l.counted and ${NAMED} order by l.blob_id for update`,
    [repositoryId],
  )
  if (found.length === 0) return 0
  const rows = await tx.query(
    `with mended as (
       update repository_blob l set counted = true from blob b
        where l.repository_id = $1 and l.blob_id = any($2::bigint[]) and b.id = l.blob_id and not l.counted and ${NAMED}
       returning l.repository_id, b.size)
     insert into usage_delta (repository_id, blobs, blob_bytes, settled)
     select repository_id, 1, size, false from mended returning id`,
    [repositoryId, found.map(row => row.blob_id)],
  )
  return rows.length
}

async function keepDay(tx: Transaction, repositoryId: number): Promise<void> {
  await tx.query(
    `insert into usage_day (repository_id, day, bytes, manifests, tags)
     select u.repository_id, current_date, u.bytes + d.bytes, u.manifests + d.manifests, u.tags + d.tags
       from repository_usage u
      cross join (select coalesce(sum(blob_bytes + manifest_bytes), 0)::bigint as bytes,
                         coalesce(sum(manifests), 0)::bigint as manifests, coalesce(sum(tags), 0)::bigint as tags
                    from usage_delta where repository_id = $1) d
       left join lateral (select bytes, manifests, tags from usage_day
                           where repository_id = $1 order by day desc limit 1) f on true
      where u.repository_id = $1
        and (f.bytes, f.manifests, f.tags) is distinct from (u.bytes + d.bytes, u.manifests + d.manifests, u.tags + d.tags)
     on conflict (repository_id, day) do nothing`,
    [repositoryId],
  )
}

/** Lets a repository forget quotas that are gone. */
export async function forgetQuotas(tx: Transaction, repositoryId: number): Promise<void> {
  const stale = await tx.query(
    `select id from repository r where r.id = $1
        and exists (select from unnest(r.quotas) x where not exists (select from quota where id = x))
      for no key update`,
    [repositoryId],
  )
  if (stale.length === 0) return
  await tx.query(
    `update repository set quotas = array(select x from unnest(quotas) x
                                           where exists (select from quota where id = x) order by x)
      where id = $1`,
    [repositoryId],
  )
}

/** Removes up to `limit` days' figures older than `days`, but each repository's last; answers how many. */
export async function pruneDays(tx: Transaction, days: number, limit: number): Promise<number> {
  const rows = await tx.query(
    `delete from usage_day d using (
       select repository_id, day from usage_day o
        where day < current_date - $1::int
          and exists (select from usage_day n where n.repository_id = o.repository_id and n.day > o.day
                                                and n.day <= current_date - $1::int)
        order by day limit $2) g
      where d.repository_id = g.repository_id and d.day = g.day returning d.day`,
    [days, limit],
  )
  return rows.length
}

/** Compares what is left of a counted quota with what its repositories use, and repairs it. Answers truth less count, in bytes. */
export async function checkQuota(tx: Transaction, quotaId: number): Promise<number> {
  // Whoever else checks it waits here, and sees what was repaired.
  const [quota] = await tx.query<{ measure: string }>(
    'select measure from quota where id = $1 and counted_at is not null for no key update',
    [quotaId],
  )
  if (quota === undefined) return 0
  if (quota.measure === 'physical') await checkQuotaBlobs(tx, quotaId)
  const blobBytes = quota.measure === 'physical' ? '0' : 'blob_bytes'
  const [row] = await tx.query<{ drift: number }>(
    `with counted as (select id from repository where quotas @> array[$1::bigint])
     select (select coalesce(sum(x.bytes), 0) from (
               select u.manifest_bytes + ${blobBytes} as bytes
                 from repository_usage u join counted c on c.id = u.repository_id
               union all
               select u.manifest_bytes + ${blobBytes}
                 from usage_delta u join counted c on c.id = u.repository_id where u.settled
               union all
               select size from quota_blob where quota_id = $1) x)::bigint
            - (q.limit_bytes - (select sum(free) from quota_slot where quota_id = q.id))::bigint as drift
       from quota q where q.id = $1`,
    [quotaId],
  )
  const drift = row?.drift ?? 0
  await giveBack(tx, quotaId, -drift)
  await tx.query('update quota set checked_at = clock_timestamp() where id = $1', [quotaId])
  return drift
}

async function checkQuotaBlobs(tx: Transaction, quotaId: number): Promise<void> {
  await tx.query(
    `with counted as (
       select id, 0 as above from repository where quotas @> array[$1::bigint]
       union all
       select id, left_until from repository where leaving <> '{}' and leaving @> array[$1::bigint]),
     truth as (
       select blob_id, sum(links)::bigint as links, max(size) as size from (
         select l.blob_id, 1 as links, b.size from repository_blob l
           join counted c on c.id = l.repository_id and l.blob_id > c.above join blob b on b.id = l.blob_id
          where l.counted
         union all
         select u.blob_id, -u.blobs, abs(u.blob_bytes) from usage_delta u
           join counted c on c.id = u.repository_id and u.blob_id > c.above where not u.settled) x
        group by blob_id),
     wrong as (
       select coalesce(t.blob_id, b.blob_id) as blob_id, coalesce(t.size, b.size) as size,
              coalesce(t.links, 0) - coalesce(b.links, 0) as missing
         from truth t full join (select * from quota_blob where quota_id = $1) b on b.blob_id = t.blob_id
        where coalesce(t.links, 0) <> coalesce(b.links, 0))
     insert into quota_blob as q (quota_id, blob_id, size, links)
     select $1, blob_id, size, missing from wrong order by blob_id
     on conflict (quota_id, blob_id) do update set links = q.links + excluded.links`,
    [quotaId],
  )
  await tx.query('delete from quota_blob where quota_id = $1 and links <= 0', [quotaId])
}

/** Ids of the counted quotas that were not checked for longer than `ageMs`. */
export async function uncheckedQuotas(db: Queryable, ageMs: number): Promise<readonly number[]> {
  const rows = await db.query<{ id: number }>(
    `select id from quota
      where counted_at is not null and coalesce(checked_at < clock_timestamp() - $1 * interval '1 millisecond', true)
      order by id`,
    [ageMs],
  )
  return rows.map(({ id }) => id)
}
