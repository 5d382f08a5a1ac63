import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Queryable, Transaction } from './database.ts'
import { BELOW, below } from './mirrors.ts'
import { type ExpiredLink, NAMED, deleteLinks, markUnlinked } from './sweep.ts'

const MS = "interval '1 millisecond'"

/** What a mirror's copies took when that was last found out. Bytes. */
export interface MirrorSize {
  /** Each blob once; null where it was never measured. */
  readonly bytes: number | null
  /** Each blob once a repository, at the same moment. */
  readonly logical_bytes: number | null
  /** How long ago that was, in milliseconds. */
  readonly age_ms: number | null
}

/** Takes the making of room in a mirror for `holder`; undefined where another process has it. */
export async function takeEviction(
  tx: Transaction,
  prefix: string,
  holder: string,
  leaseMs: number,
): Promise<MirrorSize | undefined> {
  await tx.query('insert into mirror_state (prefix) values ($1) on conflict (prefix) do nothing', [prefix])
  const rows = await tx.query<MirrorSize>(
    `update mirror_state set evicting = $2, evicting_until = clock_timestamp() + $3 * ${MS}
      where prefix = $1 and coalesce(evicting_until < clock_timestamp(), true)
      returning bytes, logical_bytes, (extract(epoch from clock_timestamp() - measured_at) * 1000)::float8 as age_ms`,
    [prefix, holder, leaseMs],
  )
  return rows[0]
}

/** Notes a new size (without logical bytes: one that is to be measured again), and goes on holding the work. False where another process has it by now. */
export async function keepEviction(
  tx: Transaction,
  prefix: string,
  holder: string,
  leaseMs: number,
  size: { readonly bytes: number; readonly logicalBytes: number | null },
): Promise<boolean> {
  const rows = await tx.query(
    `update mirror_state
        set bytes = $4, logical_bytes = $5, measured_at = clock_timestamp(),
            evicting_until = clock_timestamp() + $3 * ${MS}
      where prefix = $1 and evicting = $2 returning prefix`,
    [prefix, holder, leaseMs, size.bytes, size.logicalBytes],
  )
  return rows.length === 1
}

/** Lets go of it, if it is still ours. */
export async function releaseEviction(tx: Transaction, prefix: string, holder: string): Promise<void> {
  await tx.query('update mirror_state set evicting = null, evicting_until = null where prefix = $1 and evicting = $2', [
    prefix,
    holder,
  ])
}

const NAMED_REPOSITORIES = `select id from repository where ${BELOW} and deleted_at is null`

/** Bytes of all that lies below a prefix, each blob once. Reads every link there. */
export async function measureCopies(db: Queryable, prefix: string): Promise<number> {
  const [row] = await db.query<{ bytes: number }>(
    `with named as materialized (${NAMED_REPOSITORIES})
     select (coalesce((select sum(size) from blob
                        where id in (select l.blob_id from repository_blob l join named n on n.id = l.repository_id)), 0)
           + coalesce((select sum(m.size) from manifest m join named n on n.id = m.repository_id), 0))::bigint as bytes`,
    below(prefix),
  )
  return row?.bytes ?? 0
}

/**
 * Finds the copies of which no use is known: manifests, and links that no manifest names. They count as used when they
 * came. Reads everything below the prefix.
 */
export async function findUnnoted(tx: Transaction, prefix: string): Promise<void> {
  const noted = (of: string): string =>
    `exists (select from mirrored_use u where u.repository_id = ${of}.repository_id and u.digest = ${of}.digest and u.prefix = $3)`
  await tx.query(
    `with named as materialized (${NAMED_REPOSITORIES})
     insert into mirrored_use as u (repository_id, digest, prefix, is_blob, used_at)
     select m.repository_id, m.digest, $3, false, m.pushed_at
       from manifest m join named n on n.id = m.repository_id where m.deleted_at is null and not ${noted('m')}
     union all
     select l.repository_id, l.digest, $3, true, b.created_at
       from repository_blob l join named n on n.id = l.repository_id join blob b on b.id = l.blob_id
      where not ${NAMED} and not ${noted('l')}
     order by 1, 2
     on conflict (repository_id, digest) do update set prefix = excluded.prefix`,
    [...below(prefix), prefix],
  )
}

/** A copy that was not used lately. `repository` is null where it is gone. */
export interface Evictable {
  readonly repository_id: number
  readonly repository: RepositoryName | null
  readonly digest: Digest
  readonly is_blob: boolean
}

/** Up to `limit` copies of a mirror that were last used before `spareMs` ago, the longest unused first. */
export async function findEvictable(
  db: Queryable,
  prefix: string,
  spareMs: number,
  limit: number,
): Promise<readonly Evictable[]> {
  return await db.query<Evictable>(
    `select u.repository_id, r.name as repository, u.digest, u.is_blob
       from (select repository_id, digest, is_blob, used_at from mirrored_use
              where prefix = $1 and used_at < statement_timestamp() - $2 * ${MS} order by used_at limit $3) u
       left join repository r on r.id = u.repository_id and r.deleted_at is null
      order by u.used_at`,
    [prefix, spareMs, limit],
  )
}

/** Forgets a use that is still older than `spareMs`. False where the copy was used since, or another process is at it. */
export async function takeUse(
  tx: Transaction,
  { repository_id: id, digest }: Pick<Evictable, 'repository_id' | 'digest'>,
  spareMs: number,
): Promise<boolean> {
  const rows = await tx.query(
    `delete from mirrored_use where (repository_id, digest) in (
       select repository_id, digest from mirrored_use
        where repository_id = $1 and digest = $2 and used_at < clock_timestamp() - $3 * ${MS} for update skip locked)
     returning digest`,
    [id, digest, spareMs],
  )
  return rows.length === 1
}

/** Lets a copy that cannot go now count as used now. */
export async function postponeUse(
  tx: Transaction,
  { repository_id: id, digest }: Pick<Evictable, 'repository_id' | 'digest'>,
): Promise<void> {
  await tx.query('update mirrored_use set used_at = clock_timestamp() where repository_id = $1 and digest = $2', [
    id,
    digest,
  ])
}

/**
 * Lets a manifest whose subject is here count as used a moment after that, so that it goes with it and not before. False
 * where it has no subject here.
 */
export async function followSubject(
  tx: Transaction,
  { repository_id: id, digest }: Pick<Evictable, 'repository_id' | 'digest'>,
): Promise<boolean> {
  const rows = await tx.query(
    `update mirrored_use u
        set used_at = greatest(coalesce(s.used_at, clock_timestamp()), u.used_at) + interval '1 second'
       from (select v.used_at from manifest m
               join manifest s on s.repository_id = m.repository_id and s.digest = m.subject_digest
               left join mirrored_use v on v.repository_id = s.repository_id and v.digest = s.digest
              where m.repository_id = $1 and m.digest = $2 and m.deleted_at is null and s.deleted_at is null) s
      where u.repository_id = $1 and u.digest = $2 returning u.digest`,
    [id, digest],
  )
  return rows.length > 0
}

/** A manifest and those that refer to it, and to them: what goes together, the last referrers first. */
export async function familyOf(
  db: Queryable,
  { repository_id: id, digest }: Pick<Evictable, 'repository_id' | 'digest'>,
): Promise<readonly Digest[]> {
  const rows = await db.query<{ digest: Digest }>(
    `with recursive family as (
       select digest, 0 as depth from manifest where repository_id = $1 and digest = $2 and deleted_at is null
       union
       select m.digest, f.depth + 1 from family f
         join manifest m on m.repository_id = $1 and m.subject_digest = f.digest and m.deleted_at is null
        where f.depth < 10)
     select digest from family group by digest order by max(depth) desc, digest`,
    [id, digest],
  )
  return rows.map(row => row.digest)
}

/** Whether one of these copies was used within `spareMs`. */
export async function isInUse(
  db: Queryable,
  repositoryId: number,
  digests: readonly Digest[],
  spareMs: number,
): Promise<boolean> {
  const rows = await db.query(
    `select digest from mirrored_use where repository_id = $1 and digest = any($2::text[])
        and used_at >= clock_timestamp() - $3 * ${MS} limit 1`,
    [repositoryId, digests, spareMs],
  )
  return rows.length > 0
}

/** What manifests name by blob edges. */
export async function blobsOf(
  db: Queryable,
  repositoryId: number,
  manifestIds: readonly number[],
): Promise<readonly Digest[]> {
  const rows = await db.query<{ digest: Digest }>(
    'select distinct digest from manifest_blob where repository_id = $1 and manifest_id = any($2::bigint[])',
    [repositoryId, manifestIds],
  )
  return rows.map(row => row.digest)
}

/**
 * Removes links that no manifest names any more and that were not used within `spareMs`; those that another transaction
 * holds stay for the sweep. Answers how many went, and the bytes that nothing below the prefix has any more.
 */
export async function evictLinks(
  tx: Transaction,
  prefix: string,
  repositoryId: number,
  digests: readonly Digest[],
  spareMs: number,
): Promise<{ readonly links: number; readonly bytes: number }> {
  const locked = await tx.query<ExpiredLink>(
    `select l.repository_id, l.blob_id, l.digest from repository_blob l
      where l.repository_id = $1 and l.digest = any($2::text[])
        and not exists (select from mirrored_use u where u.repository_id = l.repository_id and u.digest = l.digest
                           and u.used_at >= clock_timestamp() - $3 * ${MS})
      order by l.blob_id for update of l skip locked`,
    [repositoryId, digests, spareMs],
  )
  if (locked.length === 0) return { links: 0, bytes: 0 }
  const unlinked = await deleteLinks(tx, locked)
  await markUnlinked(tx, unlinked)
  const gone = new Set(unlinked)
  await tx.query('delete from mirrored_use where repository_id = $1 and digest = any($2::text[])', [
    repositoryId,
    locked.filter(({ blob_id: id }) => gone.has(id)).map(({ digest }) => digest),
  ])
  const [freed] = await tx.query<{ bytes: number }>(
    `select coalesce(sum(b.size), 0)::bigint as bytes from blob b
      where b.id = any($3::bigint[])
        and not exists (select from repository_blob l join repository r on r.id = l.repository_id
                         where l.blob_id = b.id and r.${BELOW.replace('and name', 'and r.name')})`,
    [...below(prefix), unlinked],
  )
  return { links: unlinked.length, bytes: freed?.bytes ?? 0 }
}
