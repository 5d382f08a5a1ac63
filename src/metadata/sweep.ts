import type { Digest } from '../oci/digest.ts'
import type { Transaction } from './database.ts'
import { insertReleases, insertStoreUsage } from './usage.ts'

// The statements of the collector. It never waits for a row: what another transaction holds is looked at next time, so
// it can be in no deadlock. Rows are locked first and judged by a later statement, whose snapshot sees whatever was
// committed before the lock: one combined statement would judge by the older snapshot and delete what is in use.

// Every `exists` here ends with `offset 0`: it keeps the planner from making a join of it, for which it would read the
// whole of a table to judge a few rows. As it stands each row costs an index look-up, whatever the statistics say.

/**
 * Rows whose lease has ended, in the words of the partial indexes of finite leases: the planner uses these only where the
 * bound stands there, and seeks in them only by a time that does not change within the statement.
 */
export const EXPIRED = `lease_until < 'infinity' and lease_until < statement_timestamp()`

/** A manifest whose lease has ended, locked. */
export interface ExpiredManifest {
  readonly id: number
  readonly repository_id: number
  readonly digest: Digest
  readonly size: number
}

/**
 * Locks up to `limit` manifests whose lease has ended, those that ended first. The lock holds off whoever would refer to
 * them: a push of an index that names them, and a push of themselves.
 */
export async function lockExpiredManifests(tx: Transaction, limit: number): Promise<readonly ExpiredManifest[]> {
  return await tx.query<ExpiredManifest>(
    `select id, repository_id, digest, size from manifest
      where ${EXPIRED} order by lease_until limit $1 for update skip locked`,
    [limit],
  )
}

/**
 * What keeps a visible manifest: a tag, an index that names it (also one that was deleted and can come back), or its
 * living subject. Nothing keeps one that was deleted itself.
 */
export const ROOTED = `m.deleted_at is null and (
  exists (select from tag t where t.repository_id = m.repository_id and t.manifest_id = m.id offset 0)
  or exists (select from manifest_child e where e.repository_id = m.repository_id and e.child_digest = m.digest offset 0)
  or exists (select from manifest s where s.repository_id = m.repository_id and s.digest = m.subject_digest
                                      and s.deleted_at is null offset 0))`

/** Of locked manifests, the ids of those that nothing keeps. */
export async function findUnrooted(tx: Transaction, ids: readonly number[]): Promise<readonly number[]> {
  const rows = await tx.query<{ id: number }>(
    `select m.id from manifest m where m.id = any($1::bigint[]) and not (${ROOTED}) order by m.id`,
    [ids],
  )
  return rows.map(row => row.id)
}

/** Looks at locked manifests again after `inMs`. */
export async function postponeManifests(tx: Transaction, ids: readonly number[], inMs: number): Promise<void> {
  if (ids.length === 0) return
  await tx.query(
    `update manifest set lease_until = clock_timestamp() + $2 * interval '1 millisecond' where id = any($1::bigint[])`,
    [ids, inMs],
  )
}

/** Takes manifests that were found in use out of the collector's sight until they lose a root. */
export async function keepManifests(tx: Transaction, ids: readonly number[]): Promise<void> {
  if (ids.length > 0) await tx.query(`update manifest set lease_until = 'infinity' where id = any($1::bigint[])`, [ids])
}

/**
 * What loses a root is locked where its lease is infinite, or so near its end that another process may be judging it:
 * that one still sees the root, would find the row in use for good, and nobody would look at it ever again.
 */
const AT_STAKE = `(d.lease_until = 'infinity' or d.lease_until < clock_timestamp() + interval '1 minute')`
/** An infinite lease becomes a finite one; one that has ended stays so, and its row goes with the next sweep. */
const FINITE = (parameter: string): string =>
  `case when lease_until = 'infinity' then clock_timestamp() + ${parameter} * interval '1 millisecond'
        else lease_until end`

/**
 * Gives children, referrers and links that lose a root with these (locked) manifests a finite lease of `leaseMs`, so
 * that they are looked at when whatever was promised of them has run out, and holds them until the transaction ends.
 * Answers the manifests of which that could not be done now, because another transaction holds one of those rows: they
 * must not be removed yet.
 */
export async function releaseDependants(
  tx: Transaction,
  ids: readonly number[],
  leaseMs: number,
): Promise<ReadonlySet<number>> {
  const held = new Set<number>()
  const manifests = await tx.query<{ id: number; doomed: number }>(
    `select d.id, m.id as doomed from manifest m
      cross join lateral (
        select r.id, r.lease_until from manifest r
         where r.repository_id = m.repository_id and r.subject_digest = m.digest
        union all
        select c.id, c.lease_until from manifest_child e
          join manifest c on c.repository_id = e.repository_id and c.digest = e.child_digest
         where e.parent_id = m.id) d
      where m.id = any($1::bigint[]) and ${AT_STAKE}`,
    [ids],
  )
  if (manifests.length > 0) {
    const locked = await tx.query<{ id: number }>(
      `update manifest set lease_until = ${FINITE('$2')}
        where id in (select id from manifest where id = any($1::bigint[]) for no key update skip locked)
        returning id`,
      [[...new Set(manifests.map(row => row.id))], leaseMs],
    )
    const done = new Set(locked.map(row => row.id))
    for (const row of manifests) if (!done.has(row.id)) held.add(row.doomed)
  }
  const links = await tx.query<{ repository_id: number; blob_id: number; doomed: number }>(
    `select d.repository_id, d.blob_id, m.id as doomed from unnest($1::bigint[]) as m (id)
      cross join lateral (select repository_id, digest from manifest_blob where manifest_id = m.id offset 0) e
      cross join lateral (
        select l.repository_id, l.blob_id, l.lease_until from repository_blob l
         where l.repository_id = e.repository_id and l.digest = e.digest limit 1) d
      where ${AT_STAKE}`,
    [ids],
  )
  if (links.length > 0) {
    const locked = await tx.query<{ repository_id: number; blob_id: number }>(
      `update repository_blob l set lease_until = ${FINITE('$3')}
         from (select repository_id, blob_id from repository_blob
                where (repository_id, blob_id) in (select * from unnest($1::bigint[], $2::bigint[]))
                for no key update skip locked) f
        where l.repository_id = f.repository_id and l.blob_id = f.blob_id
        returning l.repository_id, l.blob_id`,
      [links.map(row => row.repository_id), links.map(row => row.blob_id), leaseMs],
    )
    const done = new Set(locked.map(row => `${row.repository_id} ${row.blob_id}`))
    for (const row of links) if (!done.has(`${row.repository_id} ${row.blob_id}`)) held.add(row.doomed)
  }
  return held
}

/** Removes locked manifests that nothing keeps, with their edges, and ends their counting. Answers those that went. */
export async function deleteManifests(tx: Transaction, ids: readonly number[]): Promise<readonly Gone[]> {
  if (ids.length === 0) return []
  await tx.query(
    `update manifest_child e set child_id = null from manifest m
      where m.id = any($1::bigint[]) and e.repository_id = m.repository_id and e.child_id = m.id`,
    [ids],
  )
  const gone = await tx.query<Gone>(
    `delete from manifest m where m.id = any($1::bigint[]) and not (${ROOTED})
      returning m.id, m.repository_id, m.digest, m.size, m.deleted_at is null as visible,
                (select r.name from repository r where r.id = m.repository_id) as repository`,
    [ids],
  )
  await insertReleases(
    tx,
    gone.filter(({ visible }) => visible).map(({ repository_id, size }) => ({ repository_id, size })),
  )
  return gone
}

interface Gone {
  readonly id: number
  readonly repository_id: number
  readonly repository: string
  readonly digest: Digest
  readonly size: number
  readonly visible: boolean
}

/** A link whose lease has ended, locked. */
export interface ExpiredLink {
  readonly repository_id: number
  readonly blob_id: number
  readonly digest: Digest
}

/** Locks up to `limit` links whose lease has ended. The lock holds off pushes of manifests that name the blob. */
export async function lockExpiredLinks(tx: Transaction, limit: number): Promise<readonly ExpiredLink[]> {
  return await tx.query<ExpiredLink>(
    `select repository_id, blob_id, digest from repository_blob
      where ${EXPIRED} order by lease_until limit $1 for update skip locked`,
    [limit],
  )
}

const LOCKED_LINKS = '(l.repository_id, l.blob_id) in (select * from unnest($1::bigint[], $2::bigint[]))'
/** Judged by digest: an edge may be older than the link, and bound to none. */
export const NAMED = `exists (select from manifest_blob e where e.repository_id = l.repository_id and e.digest = l.digest offset 0)`

/** Takes locked links that a manifest names out of the collector's sight. Answers how many. */
export async function keepNamedLinks(tx: Transaction, links: readonly ExpiredLink[]): Promise<number> {
  const rows = await tx.query(
    `update repository_blob l set lease_until = 'infinity' where ${LOCKED_LINKS} and ${NAMED} returning l.blob_id`,
    linkKeys(links),
  )
  return rows.length
}

/** Removes locked links that no manifest names, and ends their counting. Answers the blobs they were of. */
export async function deleteLinks(tx: Transaction, links: readonly ExpiredLink[]): Promise<readonly number[]> {
  const rows = await tx.query<{ repository_id: number; blob_id: number; size: number; counted: boolean }>(
    `delete from repository_blob l using blob b where ${LOCKED_LINKS} and not ${NAMED} and b.id = l.blob_id
     returning l.repository_id, l.blob_id, b.size, l.counted`,
    linkKeys(links),
  )
  await insertReleases(
    tx,
    rows.filter(({ counted }) => counted),
  )
  return [...new Set(rows.map(row => row.blob_id))]
}

function linkKeys(links: readonly ExpiredLink[]): [number[], number[]] {
  return [links.map(link => link.repository_id), links.map(link => link.blob_id)]
}

/**
 * Marks blobs that lost a link, so that the collector asks whether it was the last. A blob that another transaction
 * changes now is passed over: everything that changes the row of a living blob marks it, and who takes a mark away holds a
 * link that speaks for it.
 */
export async function markUnlinked(tx: Transaction, blobIds: readonly number[]): Promise<void> {
  if (blobIds.length === 0) return
  await tx.query(
    `update blob set unlinked_at = clock_timestamp()
      where id in (select id from blob where id = any($1::bigint[]) order by id for no key update skip locked)`,
    [blobIds],
  )
}

/** What {@link lockUnlinkedBlobs} found: how many marked blobs it looked at, and those of them that nothing links, locked. */
export interface UnlinkedBlobs {
  readonly looked: number
  readonly ids: readonly number[]
}

/**
 * Looks at up to `limit` marked blobs. Those that are linked are not locked for deletion, and lose their mark: a base
 * layer that everybody uses must not be held against pushes. The link that speaks for one is held to the end of the
 * transaction: it would be removed by somebody who passes the mark over, because the blob is being changed.
 */
export async function lockUnlinkedBlobs(tx: Transaction, limit: number): Promise<UnlinkedBlobs> {
  const marked = await tx.query<{ id: number }>(
    `select id from blob where unlinked_at is not null order by unlinked_at limit $1 for no key update skip locked`,
    [limit],
  )
  if (marked.length === 0) return { looked: 0, ids: [] }
  const ids = marked.map(row => row.id)
  const linked = await tx.query<{ id: number }>(
    `select b.id from unnest($1::bigint[]) as b (id)
      cross join lateral (select from repository_blob where blob_id = b.id limit 1 for key share skip locked) l`,
    [ids],
  )
  const linkedIds = linked.map(row => row.id)
  await tx.query('update blob set unlinked_at = null where id = any($1::bigint[])', [linkedIds])
  const unlinked = await tx.query<{ id: number }>(
    `select b.id from blob b
      where b.id = any($1::bigint[]) and b.id <> all($2::bigint[])
        and not exists (select from repository_blob l where l.blob_id = b.id offset 0)
      order by b.id for update of b skip locked`,
    [ids, linkedIds],
  )
  // Where nothing could be decided, looking again at once would be no better.
  const isDecided = linked.length + unlinked.length > 0
  return { looked: isDecided ? ids.length : 0, ids: unlinked.map(row => row.id) }
}

/**
 * Removes locked blobs that no repository links, and hands their bytes to the trash for `graceMs`, in one statement:
 * from its commit on, and not before, the bytes may be disposed of. Answers how many, and their bytes.
 */
export async function trashBlobs(
  tx: Transaction,
  ids: readonly number[],
  graceMs: number,
): Promise<{ readonly blobs: number; readonly bytes: number }> {
  const rows = await tx.query<{ store: string; size: number }>(
    `with gone as (
       delete from blob b where b.id = any($1::bigint[])
          and not exists (select from repository_blob l where l.blob_id = b.id offset 0)
       returning b.store, b.storage_key, b.digest, b.size)
     insert into trash (store, storage_key, digest, size, purge_after)
     select store, storage_key, digest, size, clock_timestamp() + $2 * interval '1 millisecond' from gone
     returning store, size`,
    [ids, graceMs],
  )
  await insertStoreUsage(
    tx,
    rows.map(({ store, size }) => ({ store, blobs: -1, bytes: -size })),
  )
  return { blobs: rows.length, bytes: rows.reduce((sum, row) => sum + row.size, 0) }
}
