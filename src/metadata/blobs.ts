import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import { LostRace, type Queryable, type Transaction } from './database.ts'
import { type Placed, inPlace } from './look-up.ts'
import { markUnlinked } from './sweep.ts'
import { visibleCondition } from './repositories.ts'
import { type CountedLink, insertReleases, insertStoreUsage } from './usage.ts'

/** A blob as one repository sees it. */
export interface LinkedBlob {
  readonly repository_id: number
  readonly blob_id: number
  readonly size: number
  readonly store: string
  readonly storage_key: string
  /** Whether as much of its lease is left as was asked about. */
  readonly leased: boolean
}

/** Which blob of which repository. */
export interface BlobKey {
  readonly repository: RepositoryName
  readonly digest: Digest
}

/**
 * The blobs under these digests that their repositories link, in the order of `keys`, undefined where there is none; one
 * statement. `enoughMs` is how much of a lease makes `leased` true.
 */
export async function findLinkedBlobs(
  db: Queryable,
  keys: readonly BlobKey[],
  enoughMs: number,
): Promise<(LinkedBlob | undefined)[]> {
  // The limits keep the way to each row one of index look-ups, whatever the planner believes about the tables.
  const rows = await db.query<LinkedBlob & Placed>(
    `select k.place::int, l.repository_id, l.blob_id, l.size, l.store, l.storage_key,
            l.lease_until >= clock_timestamp() + $3 * interval '1 millisecond' as leased
       from unnest($1::text[], $2::text[]) with ordinality as k (repository, digest, place)
      cross join lateral (select id from repository where name = k.repository and deleted_at is null limit 1) r
      cross join lateral (
        select x.repository_id, x.blob_id, x.lease_until, b.size, b.store, b.storage_key
          from repository_blob x join blob b on b.id = x.blob_id
         where x.repository_id = r.id and x.digest = k.digest and b.damaged_at is null limit 1) l`,
    [keys.map(key => key.repository), keys.map(key => key.digest), enoughMs],
  )
  return inPlace(rows, keys.length)
}

/** Gives a link a full lease. False when the link is gone. */
export async function renewLink(
  tx: Transaction,
  repositoryId: number,
  blobId: number,
  leaseMs: number,
): Promise<boolean> {
  const rows = await tx.query(
    `update repository_blob
        set lease_until = greatest(lease_until, clock_timestamp() + $3 * interval '1 millisecond')
      where repository_id = $1 and blob_id = $2 returning blob_id`,
    [repositoryId, blobId, leaseMs],
  )
  return rows.length === 1
}

/** What {@link holdBlob} found or made. */
export interface HeldBlob {
  readonly id: number
  readonly storage_key: string
  readonly damaged: boolean
}

/**
 * The blob row of that digest, inserted with `key` where absent, held against the sweep until the transaction ends.
 * @throws LostRace when the row vanished between the two statements: the transaction is tried again.
 */
export async function holdBlob(
  tx: Transaction,
  blob: { readonly digest: Digest; readonly size: number; readonly store: string; readonly key: string },
): Promise<HeldBlob> {
  const find = async (): Promise<HeldBlob | undefined> => {
    const rows = await tx.query<HeldBlob>(
      'select id, storage_key, damaged_at is not null as damaged from blob where digest = $1 for key share',
      [blob.digest],
    )
    return rows[0]
  }
  // Asked first: an insert waits for whoever changes the row that is there, such as the collector its mark; this does not.
  const there = await find()
  if (there !== undefined) return there
  await tx.query(
    `with new as (
       insert into blob (digest, size, store, storage_key) values ($1, $2, $3, $4)
       on conflict (digest) do nothing returning store, size)
     insert into usage_delta (store, blobs, blob_bytes, settled) select store, 1, size, true from new`,
    [blob.digest, blob.size, blob.store, blob.key],
  )
  const held = await find()
  if (held === undefined) throw new LostRace('the blob row was collected between insert and lock')
  return held
}

/** Puts sound bytes in the place of damaged ones; returns the key that was replaced, or undefined if another did it first. */
export async function repairBlob(
  tx: Transaction,
  id: number,
  sound: { readonly store: string; readonly key: string; readonly size: number },
): Promise<{ readonly store: string; readonly storage_key: string } | undefined> {
  const old = await tx.query<{ store: string; storage_key: string; size: number }>(
    'select store, storage_key, size from blob where id = $1 and damaged_at is not null for update',
    [id],
  )
  if (old[0] === undefined) return undefined
  // Marked, as by everything that changes the row of a blob: see markUnlinked.
  await tx.query(
    `update blob set store = $2, storage_key = $3, size = $4, damaged_at = null, unlinked_at = clock_timestamp()
      where id = $1`,
    [id, sound.store, sound.key, sound.size],
  )
  await insertStoreUsage(tx, [
    { store: old[0].store, blobs: -1, bytes: -old[0].size },
    { store: sound.store, blobs: 1, bytes: sound.size },
  ])
  return old[0]
}

/** Links a blob into a repository, or renews the lease of the link that is there. True when it was not there. */
export async function linkBlob(
  tx: Transaction,
  link: { readonly repositoryId: number; readonly blobId: number; readonly digest: Digest; readonly leaseMs: number },
): Promise<boolean> {
  const [row] = await tx.query<{ inserted: boolean }>(
    `insert into repository_blob (repository_id, blob_id, digest, lease_until)
     values ($1, $2, $3, clock_timestamp() + $4 * interval '1 millisecond')
     on conflict (repository_id, blob_id)
     do update set lease_until = greatest(repository_blob.lease_until, excluded.lease_until)
     returning xmax = 0 as inserted`,
    [link.repositoryId, link.blobId, link.digest, link.leaseMs],
  )
  return row?.inserted === true
}

/** Links a blob that `from` (or, without it, any repository) links; `inserted`: it was not linked here. Undefined without such a source. */
export async function mountBlob(
  tx: Transaction,
  mount: {
    readonly repositoryId: number
    readonly digest: Digest
    readonly from: RepositoryName | undefined
    /** Without `from`: regular expressions, of which one of each list must match the source's name. */
    readonly visible: readonly (readonly string[])[]
    readonly leaseMs: number
  },
): Promise<(CountedLink & { readonly inserted: boolean }) | undefined> {
  const values: unknown[] = [mount.repositoryId, mount.digest, mount.from ?? null, mount.leaseMs]
  const seen = mount.from === undefined ? visibleCondition('r.name', mount.visible, values) : 'true'
  const rows = await tx.query<CountedLink & { inserted: boolean }>(
    `insert into repository_blob (repository_id, blob_id, digest, lease_until)
     select $1, b.id, b.digest, clock_timestamp() + $4 * interval '1 millisecond'
       from blob b
      where b.digest = $2 and b.damaged_at is null
        and exists (select from repository_blob l join repository r on r.id = l.repository_id
                     where l.blob_id = b.id and r.deleted_at is null and ($3::text is null or r.name = $3) and ${seen})
     on conflict (repository_id, blob_id)
     do update set lease_until = greatest(repository_blob.lease_until, excluded.lease_until)
     returning blob_id, (select size from blob where id = blob_id) as size, xmax = 0 as inserted`,
    values,
  )
  return rows[0]
}

/** Locks a link for its removal. */
export async function lockLink(
  tx: Transaction,
  repositoryId: number,
  digest: Digest,
): Promise<{ readonly blob_id: number } | undefined> {
  const rows = await tx.query<{ blob_id: number }>(
    'select blob_id from repository_blob where repository_id = $1 and digest = $2 for update',
    [repositoryId, digest],
  )
  return rows[0]
}

/** Digest of one visible manifest of the repository that names the blob, if any does. */
export async function findUserOfBlob(
  tx: Transaction,
  repositoryId: number,
  digest: Digest,
): Promise<string | undefined> {
  const rows = await tx.query<{ digest: string }>(
    `select m.digest from manifest_blob e join manifest m on m.id = e.manifest_id
      where e.repository_id = $1 and e.digest = $2 and m.deleted_at is null limit 1`,
    [repositoryId, digest],
  )
  return rows[0]?.digest
}

/** Removes a link; edges of manifests that are deleted already let go of it first. */
export async function removeLink(tx: Transaction, repositoryId: number, blobId: number): Promise<void> {
  await tx.query('update manifest_blob set blob_id = null where repository_id = $1 and blob_id = $2', [
    repositoryId,
    blobId,
  ])
  const gone = await tx.query<{ repository_id: number; blob_id: number; size: number; counted: boolean }>(
    `delete from repository_blob l using blob b where l.repository_id = $1 and l.blob_id = $2 and b.id = l.blob_id
     returning l.repository_id, l.blob_id, b.size, l.counted`,
    [repositoryId, blobId],
  )
  await insertReleases(
    tx,
    gone.filter(({ counted }) => counted),
  )
  await markUnlinked(tx, [blobId])
}

/** Whether a repository links the blob of that digest, sound or damaged. */
export async function hasLink(db: Queryable, repositoryId: number, digest: Digest): Promise<boolean> {
  const rows = await db.query('select from repository_blob where repository_id = $1 and digest = $2', [
    repositoryId,
    digest,
  ])
  return rows.length > 0
}

/** The size in bytes of the largest damaged blob that a repository links; 0 where none is. */
export async function damagedBytes(db: Queryable, repositoryId: number): Promise<number> {
  const [row] = await db.query<{ size: number }>(
    `select coalesce(max(b.size), 0)::bigint as size from blob b
      where b.damaged_at is not null
        and exists (select from repository_blob l where l.repository_id = $1 and l.blob_id = b.id offset 0)`,
    [repositoryId],
  )
  return row?.size ?? 0
}

/** A link that is held. */
export interface HeldLink {
  readonly digest: Digest
  readonly blob_id: number
  /** Whether the repository's usage has it: it stays so while the link is held. */
  readonly counted: boolean
}

/**
 * Holds the links of these digests against removal until the transaction ends; answers those that exist and whose bytes
 * are not known to be damaged: a manifest that names such a blob has to wait for it to be pushed again.
 */
export async function holdLinks(
  tx: Transaction,
  repositoryId: number,
  digests: readonly Digest[],
): Promise<readonly HeldLink[]> {
  if (digests.length === 0) return []
  return await tx.query<HeldLink>(
    `select l.digest, l.blob_id, l.counted from repository_blob l join blob b on b.id = l.blob_id
      where l.repository_id = $1 and l.digest = any($2::text[]) and b.damaged_at is null
      order by l.blob_id for key share of l`,
    [repositoryId, digests],
  )
}
