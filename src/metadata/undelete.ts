import type { Digest } from '../oci/digest.ts'
import type { Queryable, Transaction } from './database.ts'

/** A locked manifest of a family, as it is now. */
export interface FamilyMember {
  readonly id: number
  readonly digest: Digest
  /** Bytes. */
  readonly size: number
  readonly hidden: boolean
  /** Whether it comes back: the grace of the head of the family is not over, and it was not hidden before that. */
  readonly returns: boolean
}

/**
 * Locks, in the order of their ids, a manifest with what comes back with it, and what `tags` point to. What comes back
 * with a hidden manifest: its children and referrers that were hidden since, with theirs. Those that are visible are
 * locked as well, so that the sweep does not judge them while what keeps them is coming back. Answers the family, head
 * first; nothing where the manifest is gone.
 */
export async function lockFamily(
  tx: Transaction,
  repositoryId: number,
  digest: Digest,
  tags: readonly string[],
): Promise<readonly FamilyMember[]> {
  const rows = await tx.query<{ id: number; in_family: boolean }>(
    `with recursive family as (
       select id, digest, deleted_at, deleted_at as since from manifest where repository_id = $1 and digest = $2
       union
       select x.id, x.digest, x.deleted_at, f.since
         from family f cross join lateral (
           select m.id, m.digest, m.deleted_at from manifest m
            where m.repository_id = $1 and m.subject_digest = f.digest
           union all
           select c.id, c.digest, c.deleted_at from manifest_child e
             join manifest c on c.repository_id = e.repository_id and c.digest = e.child_digest
            where e.parent_id = f.id) x
        where f.deleted_at >= f.since)
     select m.id, m.id in (select id from family) as in_family from manifest m
      where m.id in (select id from family
                     union all
                     select manifest_id from tag where repository_id = $1 and name = any($3::text[]))
      order by m.id for no key update`,
    [repositoryId, digest, tags],
  )
  const ids = rows.filter(row => row.in_family).map(row => row.id)
  // A second statement: whoever held a row meanwhile may have changed it. Its time is one for all rows.
  return await tx.query<FamilyMember>(
    `select m.id, m.digest, m.size, m.deleted_at is not null as hidden,
            coalesce(m.deleted_at >= head.deleted_at and head.lease_until > statement_timestamp(), false) as returns
       from manifest head join manifest m on m.id = any($3::bigint[])
      where head.repository_id = $1 and head.digest = $2
      order by m.id <> head.id, m.id`,
    [repositoryId, digest, ids],
  )
}

/** Makes locked manifests visible, and leases them for `leaseMs` at least: the sweep looks again at what keeps them. */
export async function reviveManifests(tx: Transaction, ids: readonly number[], leaseMs: number): Promise<void> {
  await tx.query(
    `update manifest set deleted_at = null,
            lease_until = greatest(lease_until, clock_timestamp() + $2 * interval '1 millisecond')
      where id = any($1::bigint[])`,
    [ids, leaseMs],
  )
}

/**
 * Binds the edges of these manifests to links that came after them, and holds those against removal. Answers the blobs
 * whose links do not count as used.
 */
export async function bindEdges(
  tx: Transaction,
  repositoryId: number,
  ids: readonly number[],
): Promise<readonly number[]> {
  const links = await tx.query<{ blob_id: number; counted: boolean }>(
    `select l.blob_id, l.counted from repository_blob l
      where l.repository_id = $1 and l.digest in (select digest from manifest_blob where manifest_id = any($2::bigint[]))
      order by l.blob_id for key share`,
    [repositoryId, ids],
  )
  await tx.query(
    `update manifest_blob e set blob_id = l.blob_id from repository_blob l
      where e.manifest_id = any($2::bigint[]) and l.repository_id = $1 and l.digest = e.digest
        and e.blob_id is distinct from l.blob_id`,
    [repositoryId, ids],
  )
  return links.filter(link => !link.counted).map(link => link.blob_id)
}

/** A manifest with a digest that it names and its repository does not have. */
export interface AbsentBlob {
  readonly manifest_id: number
  readonly digest: Digest
}

/** Blobs that these manifests name and that are not linked here. */
export async function findAbsentBlobs(db: Queryable, ids: readonly number[]): Promise<readonly AbsentBlob[]> {
  return await db.query<AbsentBlob>(
    `select e.manifest_id, e.digest from manifest_blob e
      where e.manifest_id = any($1::bigint[]) and e.blob_id is null
        and not exists (select from repository_blob l
                         where l.repository_id = e.repository_id and l.digest = e.digest)`,
    [ids],
  )
}

/** A repository that was deleted. */
export interface DeletedRepository {
  readonly id: number
  readonly draining: boolean
}

/** Locks the repository of that name that was deleted last, or the one of that id. */
export async function lockDeletedRepository(
  tx: Transaction,
  name: string,
  id: number | undefined,
): Promise<DeletedRepository | undefined> {
  const rows = await tx.query<DeletedRepository>(
    `select id, draining_at is not null as draining from repository
      where name = $1 and deleted_at is not null and ($2::bigint is null or id = $2)
      order by deleted_at desc limit 1 for update`,
    [name, id ?? null],
  )
  return rows[0]
}

/** Makes a locked repository the living one of its name. SQLSTATE 23505 where there is one already. */
export async function reviveRepository(tx: Transaction, id: number): Promise<void> {
  await tx.query('update repository set deleted_at = null, deleted_by = null where id = $1', [id])
}
