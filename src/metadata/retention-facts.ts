import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Queryable, Transaction } from './database.ts'
import { ROOTED } from './sweep.ts'

/** Living repositories whose names match a regular expression, in byte order, after `last`. */
export async function matchingRepositories(
  db: Queryable,
  regex: string,
  last: string,
  limit: number,
): Promise<readonly { readonly id: number; readonly name: RepositoryName }[]> {
  return await db.query<{ id: number; name: RepositoryName }>(
    `select id, name from repository where deleted_at is null and name > $2 and name ~ $1 order by name limit $3`,
    [regex, last, limit],
  )
}

/** The database's clock, and since when pulls have been counted. */
export async function readClock(db: Queryable): Promise<{ readonly now: Date; readonly since: Date }> {
  const rows = await db.query<{ now: Date; since: Date }>(
    'select clock_timestamp() as now, coalesce(max(since), clock_timestamp()) as since from pull_counting',
  )
  const row = rows[0]
  if (row === undefined) throw new Error('the index has no clock')
  return row
}

/** A tag or an untagged manifest with when it came and was last pulled. */
export interface UseRow {
  readonly digest: Digest
  readonly pushed_at: Date
  readonly pulled_at: Date | null
}

/** When a manifest was last pulled: itself, or a part of it, which clients may get by digest alone. */
const PULLED = `select max(p.last_pulled_at) as at
  from (select m.id
        union all
        select c.id from manifest_child e join manifest c on c.repository_id = e.repository_id and c.digest = e.child_digest
         where e.parent_id = m.id) part
  join manifest_pull p on p.manifest_id = part.id`

/** Tags of a repository with what is known of their use, in byte order, after `last`. */
export async function tagUses(
  db: Queryable,
  repositoryId: number,
  last: string,
  limit: number,
): Promise<readonly (UseRow & { readonly name: string; readonly subject: Digest | null })[]> {
  return await db.query<UseRow & { name: string; subject: Digest | null }>(
    `select t.name, m.digest, m.subject_digest as subject, t.updated_at as pushed_at,
            greatest(u.last_pulled_at, pulled.at) as pulled_at
       from tag t join manifest m on m.id = t.manifest_id
       left join tag_pull u on u.repository_id = t.repository_id and u.name = t.name
       left join lateral (${PULLED}) pulled on true
      where t.repository_id = $1 and t.name > $2 order by t.name limit $3`,
    [repositoryId, last, limit],
  )
}

/** Which of these subjects are in the repository, each with the digests of living indexes that name it. */
export async function subjectsOf(
  db: Queryable,
  repositoryId: number,
  subjects: readonly string[],
): Promise<readonly { readonly digest: Digest; readonly indexes: readonly Digest[] }[]> {
  return await db.query<{ digest: Digest; indexes: Digest[] }>(
    `select m.digest, array(select i.digest from manifest_child e join manifest i on i.id = e.parent_id
                             where e.repository_id = m.repository_id and e.child_digest = m.digest
                               and i.deleted_at is null) as indexes
       from manifest m where m.repository_id = $1 and m.digest = any($2::text[]) and m.deleted_at is null`,
    [repositoryId, subjects],
  )
}

/** How long manifests stay that nothing keeps, in milliseconds. */
export interface Lingering {
  /** What was promised to pushers. */
  readonly leaseMs: number
  /** How long what was deleted can be brought back. */
  readonly deleteGraceMs: number
}

/**
 * What nothing keeps but a lease that lasts for more than `leaseMs` yet, and no deletion: a tag that was removed within
 * `deleteGraceMs`, or a subject that is hidden, can come back and wants it as it is.
 */
const LINGERS = (leaseMs: string, deleteGraceMs: string): string => `m.deleted_at is null and m.lease_until < 'infinity'
  and m.lease_until > clock_timestamp() + ${leaseMs} * interval '1 millisecond' and not (${ROOTED})
  and not exists (select from manifest s where s.repository_id = m.repository_id and s.digest = m.subject_digest)
  and not exists (select from tag_history h
                   where h.repository_id = m.repository_id and h.old_digest = m.digest and h.new_digest is null
                     and h.changed_at > clock_timestamp() - ${deleteGraceMs} * interval '1 millisecond')`

/**
 * Manifests of a repository that have lost, or never had, what keeps them, and that the collector leaves alone for more
 * than `leaseMs` yet; by digest, after `last`.
 */
export async function untaggedUses(
  db: Queryable,
  repositoryId: number,
  { leaseMs, deleteGraceMs }: Lingering,
  last: string,
  limit: number,
): Promise<readonly UseRow[]> {
  return await db.query<UseRow>(
    `select m.digest, m.pushed_at, pulled.at as pulled_at from manifest m left join lateral (${PULLED}) pulled on true
      where m.repository_id = $1 and m.digest > $3 and ${LINGERS('$2', '$5')} order by m.digest limit $4`,
    [repositoryId, leaseMs, last, limit, deleteGraceMs],
  )
}

/** Leaves such manifests, which the caller has locked, to the collector in `leaseMs`. Answers the digests of those for which that is sooner. */
export async function shortenLeases(
  tx: Transaction,
  repositoryId: number,
  digests: readonly string[],
  { leaseMs, deleteGraceMs }: Lingering,
): Promise<readonly Digest[]> {
  const rows = await tx.query<{ digest: Digest }>(
    `update manifest m set lease_until = clock_timestamp() + $2 * interval '1 millisecond'
      where m.repository_id = $1 and m.digest = any($3::text[]) and ${LINGERS('$2', '$4')} returning m.digest`,
    [repositoryId, leaseMs, digests, deleteGraceMs],
  )
  return rows.map(row => row.digest)
}
