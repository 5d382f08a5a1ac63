import type { Queryable, Transaction } from './database.ts'

// Counters would make everybody who changes a repository wait for each other until commit. So changes are rows of
// their own, and folded into the counters later; use is the counter and what is not folded yet, in one snapshot.

/** A change of what a repository uses, or an amount of it. Bytes are those of blobs and of manifests. */
export interface Usage {
  readonly blobs: number
  readonly blobBytes: number
  readonly manifests: number
  readonly manifestBytes: number
  readonly tags: number
}

/** No change. */
export const NO_USAGE: Usage = { blobs: 0, blobBytes: 0, manifests: 0, manifestBytes: 0, tags: 0 }

/** Records a change for which the quotas were charged in this transaction. Waits for nobody. */
export async function insertUsage(tx: Transaction, repositoryId: number, change: Usage): Promise<void> {
  if (!isNothing(change)) await tx.query(insertUsageSql(1), usageValues(repositoryId, change))
}

/** Whether a change changes nothing. */
export function isNothing({ blobs, manifests, tags }: Usage): boolean {
  return blobs === 0 && manifests === 0 && tags === 0
}

/** The statement of {@link insertUsage}, to be part of another; its values begin at parameter `first`. */
export function insertUsageSql(first: number): string {
  const [id, blobs, blobBytes, manifests, manifestBytes, tags] = Array.from({ length: 6 }, (_, at) => `$${first + at}`)
  return `insert into usage_delta (repository_id, blobs, blob_bytes, manifests, manifest_bytes, tags, settled)
          values (${id}, ${blobs}, ${blobBytes}, ${manifests}, ${manifestBytes}, ${tags}, true)`
}

/** The values of {@link insertUsageSql}. */
export function usageValues(repositoryId: number, change: Usage): number[] {
  const { blobs, blobBytes, manifests, manifestBytes, tags } = change
  return [repositoryId, blobs, blobBytes, manifests, manifestBytes, tags]
}

/** What a repository no longer uses: the link of the blob `blob_id`, or a manifest. Size in bytes. */
export interface Release {
  readonly repository_id: number
  readonly blob_id?: number
  readonly size: number
}

/**
 * Records that links and manifests stopped counting; the fold gives their bytes back to the quotas. Waits for nobody.
 */
export async function insertReleases(tx: Transaction, releases: readonly Release[]): Promise<void> {
  if (releases.length === 0) return
  await tx.query(
    `insert into usage_delta (repository_id, blob_id, blobs, blob_bytes, manifests, manifest_bytes, settled)
     select g.repository_id, g.blob_id, case when g.blob_id is null then 0 else -1 end,
            case when g.blob_id is null then 0 else -g.size end,
            case when g.blob_id is null then -1 else 0 end,
            case when g.blob_id is null then -g.size else 0 end, false
       from unnest($1::bigint[], $2::bigint[], $3::bigint[]) as g (repository_id, blob_id, size)`,
    [
      releases.map(release => release.repository_id),
      releases.map(release => release.blob_id ?? null),
      releases.map(release => release.size),
    ],
  )
}

/** Which of held links do not count, with their sizes: see {@link countLinks}. */
export interface CountedLink {
  readonly blob_id: number
  readonly size: number
}

/**
 * Lets links of these blobs count again that do not, because a manifest that is now visible names them; the caller holds
 * the links. Answers those that changed. Two that do the same take turns, and the second changes nothing.
 */
export async function countLinks(
  tx: Transaction,
  repositoryId: number,
  blobIds: readonly number[],
): Promise<readonly CountedLink[]> {
  if (blobIds.length === 0) return []
  return await tx.query<CountedLink>(
    `update repository_blob l set counted = true
       from (select blob_id from repository_blob
              where repository_id = $1 and blob_id = any($2::bigint[]) and not counted
              order by blob_id for no key update) f, blob b
      where l.repository_id = $1 and l.blob_id = f.blob_id and b.id = f.blob_id
     returning l.blob_id, b.size`,
    [repositoryId, blobIds],
  )
}

/** What none of the repository's visible manifests names; `e` is an edge of one that was deleted in this transaction. */
const UNNAMED = `not exists (select from manifest_blob o join manifest m on m.id = o.manifest_id
                              where o.repository_id = l.repository_id and o.digest = l.digest and m.deleted_at is null)`

/**
 * Ends the counting of links that only these manifests named, which the transaction has hidden before, and answers them.
 * Links are locked by the ids of their blobs, after manifests: first against other deletions, which would each see the
 * other's manifest; then, only those that nobody else names, against pushes that are about to name them.
 */
export async function discountLinks(
  tx: Transaction,
  repositoryId: number,
  manifestIds: readonly number[],
): Promise<readonly CountedLink[]> {
  const named = await tx.query<{ blob_id: number }>(
    `select l.blob_id from repository_blob l
      where l.repository_id = $1 and l.counted
        and l.digest in (select digest from manifest_blob where manifest_id = any($2::bigint[]))
      order by l.blob_id for no key update`,
    [repositoryId, manifestIds],
  )
  if (named.length === 0) return []
  const ids = named.map(row => row.blob_id)
  const alone = await tx.query<{ blob_id: number }>(
    `select l.blob_id from repository_blob l
      where l.repository_id = $1 and l.blob_id = any($2::bigint[]) and ${UNNAMED}
      order by l.blob_id for update`,
    [repositoryId, ids],
  )
  if (alone.length === 0) return []
  // A statement of its own: a push may have named them while the lock was waited for.
  return await tx.query<CountedLink>(
    `update repository_blob l set counted = false from blob b
      where l.repository_id = $1 and l.blob_id = any($2::bigint[]) and b.id = l.blob_id and l.counted and ${UNNAMED}
     returning l.blob_id, b.size`,
    [repositoryId, alone.map(row => row.blob_id)],
  )
}

/** What a store holds more or less. Waits for nobody. */
export async function insertStoreUsage(
  tx: Transaction,
  changes: readonly { readonly store: string; readonly blobs: number; readonly bytes: number }[],
): Promise<void> {
  if (changes.length === 0) return
  await tx.query(
    `insert into usage_delta (store, blobs, blob_bytes, settled)
     select store, blobs, bytes, true from unnest($1::text[], $2::bigint[], $3::bigint[]) as c (store, blobs, bytes)`,
    [changes.map(c => c.store), changes.map(c => c.blobs), changes.map(c => c.bytes)],
  )
}

/** A repository with what it uses. `day` is when it used `former_bytes`, if it is known. */
export interface UsageRow {
  readonly repository_id: number
  readonly name: string
  /** Folded bytes: what the list is sorted by. */
  readonly sort_bytes: number
  readonly blobs: number
  readonly blob_bytes: number
  readonly manifests: number
  readonly manifest_bytes: number
  readonly tags: number
  readonly own_bytes: number
  readonly former_bytes: number | null
  readonly former_day: string | null
  readonly checked_at: Date | null
  /** Null where what was there before there were counters is not in the figures yet. */
  readonly counted_at: Date | null
}

/**
 * Living repositories whose name matches `regex`, the largest first (in the same snapshot, by what is folded), after the
 * one of `after`. `own_bytes` are those of blobs that no other living repository counts. Growth is against the
 * last day that is at least `days` ago.
 */
export async function listUsage(
  db: Queryable,
  ask: {
    readonly regex: string
    readonly after: { readonly bytes: number; readonly repositoryId: number } | undefined
    readonly days: number
    readonly limit: number
  },
): Promise<readonly UsageRow[]> {
  return await db.query<UsageRow>(
    `select p.repository_id, p.name, p.sort_bytes, p.checked_at, p.counted_at,
            p.blobs + d.blobs as blobs, p.blob_bytes + d.blob_bytes as blob_bytes,
            p.manifests + d.manifests as manifests, p.manifest_bytes + d.manifest_bytes as manifest_bytes,
            p.tags + d.tags as tags, o.own_bytes, f.bytes as former_bytes, f.day::text as former_day
       from (select u.repository_id, r.name, u.bytes as sort_bytes, u.blobs, u.blob_bytes, u.manifests,
                    u.manifest_bytes, u.tags, u.checked_at, u.counted_at
               from repository_usage u join repository r on r.id = u.repository_id
              where r.deleted_at is null and r.name ~ $1
                and ($2::bigint is null or u.bytes < $2 or (u.bytes = $2 and u.repository_id > $3))
              order by u.bytes desc, u.repository_id limit $4) p
      cross join lateral (
        select coalesce(sum(blobs), 0)::bigint as blobs, coalesce(sum(blob_bytes), 0)::bigint as blob_bytes,
               coalesce(sum(manifests), 0)::bigint as manifests,
               coalesce(sum(manifest_bytes), 0)::bigint as manifest_bytes, coalesce(sum(tags), 0)::bigint as tags
          from usage_delta where repository_id = p.repository_id) d
      cross join lateral (
        select coalesce(sum(b.size), 0)::bigint as own_bytes
          from repository_blob l join blob b on b.id = l.blob_id
         where l.repository_id = p.repository_id and l.counted
           and not exists (select from repository_blob x join repository y on y.id = x.repository_id
                            where x.blob_id = l.blob_id and x.repository_id <> l.repository_id and x.counted
                              and y.deleted_at is null)) o
       left join lateral (
        select bytes, day from usage_day
         where repository_id = p.repository_id and day <= current_date - $5::int order by day desc limit 1) f on true
      order by p.sort_bytes desc, p.repository_id`,
    [ask.regex, ask.after?.bytes ?? null, ask.after?.repositoryId ?? null, ask.limit, ask.days],
  )
}

/** What all living repositories use, and how many there are. */
export interface TotalRow {
  readonly repositories: number
  readonly blobs: number
  readonly bytes: number
  readonly manifests: number
  readonly tags: number
}

/** The sum over living repositories: each blob once a repository. */
export async function totalUsage(db: Queryable): Promise<TotalRow> {
  const [row] = await db.query<TotalRow>(
    `select count(distinct x.repository_id) as repositories, coalesce(sum(x.blobs), 0)::bigint as blobs,
            coalesce(sum(x.blob_bytes + x.manifest_bytes), 0)::bigint as bytes,
            coalesce(sum(x.manifests), 0)::bigint as manifests, coalesce(sum(x.tags), 0)::bigint as tags
       from (select repository_id, blobs, blob_bytes, manifest_bytes, manifests, tags from repository_usage
             union all
             select repository_id, blobs, blob_bytes, manifest_bytes, manifests, tags from usage_delta) x
       join repository r on r.id = x.repository_id and r.deleted_at is null`,
  )
  if (row === undefined) throw new Error('a sum has one row')
  return row
}

/** What lies in a store: blobs, each once, and trash that waits for its purge. */
export interface StoreRow {
  readonly store: string
  readonly blobs: number
  readonly bytes: number
  readonly trash_bytes: number
}

/** Every store that holds something. */
export async function storeUsage(db: Queryable): Promise<readonly StoreRow[]> {
  return await db.query<StoreRow>(
    `select store, sum(blobs)::bigint as blobs, sum(bytes)::bigint as bytes, sum(trash)::bigint as trash_bytes
       from (select store, blobs, bytes, 0 as trash from store_usage
             union all
             select store, blobs, blob_bytes, 0 from usage_delta where store is not null
             union all
             select store, 0, 0, coalesce(size, 0) from trash) x
      group by store order by store`,
  )
}
