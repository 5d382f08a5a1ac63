import type { Digest } from '../oci/digest.ts'
import type { Reference, RepositoryName } from '../oci/name.ts'
import { LostRace, type Queryable, type Transaction } from './database.ts'
import { type Placed, inPlace } from './look-up.ts'

/** A visible manifest, without its payload. */
export interface ManifestRow {
  readonly id: number
  readonly repository_id: number
  readonly digest: Digest
  readonly media_type: string
  readonly size: number
  readonly leased: boolean
}

/** Which manifest of which repository. */
export interface ManifestKey {
  readonly repository: RepositoryName
  readonly reference: Reference
}

/**
 * The visible manifests that tags or digests name, in the order of `keys`, undefined where there is none; one statement.
 * `enoughMs` is how much of a lease makes `leased` true.
 */
export async function findManifests(
  db: Queryable,
  keys: readonly ManifestKey[],
  enoughMs: number,
): Promise<(ManifestRow | undefined)[]> {
  // The limits keep the way to each row one of index look-ups, whatever the planner believes about the tables.
  const rows = await db.query<ManifestRow & Placed>(
    `select k.place::int, m.id, m.repository_id, m.digest, m.media_type, m.size,
            m.lease_until >= clock_timestamp() + $4 * interval '1 millisecond' as leased
       from unnest($1::text[], $2::text[], $3::text[]) with ordinality as k (repository, tag, digest, place)
      cross join lateral (select id from repository where name = k.repository and deleted_at is null limit 1) r
      cross join lateral (
        (select x.* from tag t join manifest x on x.id = t.manifest_id
          where t.repository_id = r.id and t.name = k.tag and x.deleted_at is null limit 1)
        union all
        (select x.* from manifest x
          where x.repository_id = r.id and x.digest = k.digest and x.deleted_at is null limit 1)) m`,
    [
      keys.map(key => key.repository),
      keys.map(key => key.reference.tag ?? null),
      keys.map(key => key.reference.digest ?? null),
      enoughMs,
    ],
  )
  return inPlace(rows, keys.length)
}

/** The bytes of a manifest; they never change under one id. */
export async function readPayload(db: Queryable, id: number): Promise<Uint8Array | undefined> {
  const rows = await db.query<{ payload: Uint8Array }>('select payload from manifest where id = $1', [id])
  return rows[0]?.payload
}

/** What a manifest is made of, whether it is visible or not. */
export async function readManifestContent(
  db: Queryable,
  id: number,
): Promise<{ readonly digest: Digest; readonly media_type: string; readonly payload: Uint8Array } | undefined> {
  const rows = await db.query<{ digest: Digest; media_type: string; payload: Uint8Array }>(
    'select digest, media_type, payload from manifest where id = $1',
    [id],
  )
  return rows[0]
}

/** Gives a visible manifest a full lease. False when it is gone or deleted. */
export async function renewManifest(tx: Transaction, id: number, leaseMs: number): Promise<boolean> {
  const rows = await tx.query(
    `update manifest set lease_until = greatest(lease_until, clock_timestamp() + $2 * interval '1 millisecond')
      where id = $1 and deleted_at is null returning id`,
    [id, leaseMs],
  )
  return rows.length === 1
}

/** What {@link upsertManifest} writes. */
export interface NewManifest {
  readonly repositoryId: number
  readonly digest: Digest
  readonly mediaType: string
  readonly artifactType: string | undefined
  readonly subject: Digest | undefined
  readonly annotations: Readonly<Record<string, string>> | undefined
  readonly payload: Uint8Array
  readonly leaseMs: number
  readonly principal: string | undefined
  readonly provenance: Readonly<Record<string, string>> | undefined
}

/**
 * Inserts a manifest, or revives and leases the one of that digest; answers its id, and whether it was not visible before.
 * @throws LostRace where another transaction inserts it at the same time: the transaction is tried again.
 */
export async function upsertManifest(
  tx: Transaction,
  manifest: NewManifest,
): Promise<{ readonly id: number; readonly appeared: boolean }> {
  const rows = await tx.query<{ id: number; inserted: boolean; was: 'visible' | 'deleted' | null }>(
    `with former as (
       select case when deleted_at is null then 'visible' else 'deleted' end as was
         from manifest where repository_id = $1 and digest = $2)
     insert into manifest (repository_id, digest, media_type, artifact_type, subject_digest, size, payload,
                           annotations, lease_until, pushed_by, provenance)
     values ($1, $2, $3, $4, $5, $6, $7, $8, clock_timestamp() + $9 * interval '1 millisecond', $10, $11)
     on conflict (repository_id, digest) do update
        set media_type = excluded.media_type, artifact_type = excluded.artifact_type,
            lease_until = greatest(manifest.lease_until, excluded.lease_until), deleted_at = null
     returning id, xmax = 0 as inserted, (select was from former) as was`,
    [
      manifest.repositoryId,
      manifest.digest,
      manifest.mediaType,
      manifest.artifactType ?? null,
      manifest.subject ?? null,
      manifest.payload.byteLength,
      manifest.payload,
      manifest.annotations === undefined ? null : JSON.stringify(manifest.annotations),
      manifest.leaseMs,
      manifest.principal ?? null,
      manifest.provenance === undefined ? null : JSON.stringify(manifest.provenance),
    ],
  )
  const row = rows[0]
  if (row === undefined) throw new Error('the manifest row was neither inserted nor updated')
  // Whoever locked it before knows its state; what was not there to be locked may have been anything since.
  if (!row.inserted && row.was === null) throw new LostRace('the manifest was inserted by another transaction')
  return { id: row.id, appeared: row.inserted || row.was === 'deleted' }
}

/** Holds visible manifests of these digests against removal until the transaction ends; answers those that exist. */
export async function holdManifests(
  tx: Transaction,
  repositoryId: number,
  digests: readonly Digest[],
): Promise<ReadonlyMap<Digest, number>> {
  if (digests.length === 0) return new Map()
  const rows = await tx.query<{ id: number; digest: Digest }>(
    `select id, digest from manifest
      where repository_id = $1 and digest = any($2::text[]) and deleted_at is null order by id for key share`,
    [repositoryId, digests],
  )
  return new Map(rows.map(row => [row.digest, row.id]))
}

/** Records which blobs a manifest names; a blob that is not linked here (yet) is an edge without a binding. */
export async function insertBlobEdges(
  tx: Transaction,
  repositoryId: number,
  manifestId: number,
  edges: readonly { readonly digest: Digest; readonly blobId: number | undefined }[],
): Promise<void> {
  if (edges.length === 0) return
  await tx.query(
    `insert into manifest_blob (manifest_id, repository_id, digest, blob_id)
     select $1, $2, e.digest, e.blob_id from unnest($3::text[], $4::bigint[]) as e (digest, blob_id)
     on conflict (manifest_id, digest) do update set blob_id = excluded.blob_id`,
    [manifestId, repositoryId, edges.map(edge => edge.digest), edges.map(edge => edge.blobId ?? null)],
  )
}

/** Records which manifests an index names, bound where they exist. */
export async function insertChildEdges(
  tx: Transaction,
  repositoryId: number,
  parentId: number,
  edges: readonly { readonly digest: Digest; readonly childId: number | undefined }[],
): Promise<void> {
  if (edges.length === 0) return
  await tx.query(
    `insert into manifest_child (parent_id, repository_id, child_digest, child_id)
     select $1, $2, e.digest, e.child_id from unnest($3::text[], $4::bigint[]) as e (digest, child_id)
     on conflict (parent_id, child_digest) do update set child_id = excluded.child_id`,
    [parentId, repositoryId, edges.map(edge => edge.digest), edges.map(edge => edge.childId ?? null)],
  )
}

/**
 * Locks, in the order of their ids, what a change of tags will write to: those that the tags (whose writers wait for each
 * other by now) point to, and the manifests of these digests where they are there already.
 */
export async function lockTargets(
  tx: Transaction,
  repositoryId: number,
  digests: readonly string[],
  tags: readonly string[],
): Promise<void> {
  // Alternatives joined by `or` would look at every manifest of the repository.
  await tx.query(
    `select id from manifest
      where id in (select id from manifest where repository_id = $1 and digest = any($2::text[])
                   union all
                   select manifest_id from tag where repository_id = $1 and name = any($3::text[]))
      order by id for no key update`,
    [repositoryId, digests, tags],
  )
}

/**
 * Locks the manifests that name a blob, in the order of their ids, as those do who write their edges: the sweep removes
 * several at a time.
 */
export async function lockManifestsOf(tx: Transaction, repositoryId: number, blob: Digest): Promise<void> {
  await tx.query(
    `select id from manifest
      where id in (select manifest_id from manifest_blob where repository_id = $1 and digest = $2)
      order by id for no key update`,
    [repositoryId, blob],
  )
}

/**
 * Locks a visible manifest for its deletion: first, in the order of their ids, with the manifests that lose a root with
 * it, as pushes do; then alone against pushes of an index that names it.
 */
export async function lockManifest(
  tx: Transaction,
  repositoryId: number,
  digest: Digest,
): Promise<{ readonly manifest_id: number; readonly digest: Digest; readonly size: number } | undefined> {
  await tx.query(
    `select id from manifest
      where id in (select id from manifest where repository_id = $1 and digest = $2
                   union all
                   select id from manifest where repository_id = $1 and subject_digest = $2
                   union all
                   select c.id from manifest p
                     join manifest_child e on e.parent_id = p.id
                     join manifest c on c.repository_id = p.repository_id and c.digest = e.child_digest
                    where p.repository_id = $1 and p.digest = $2)
      order by id for no key update`,
    [repositoryId, digest],
  )
  const rows = await tx.query<{ manifest_id: number; digest: Digest; size: number }>(
    `select id as manifest_id, digest, size from manifest
      where repository_id = $1 and digest = $2 and deleted_at is null for update`,
    [repositoryId, digest],
  )
  return rows[0]
}

/** Digest of one visible index that names this manifest, if any does. */
export async function findParent(tx: Transaction, repositoryId: number, digest: Digest): Promise<string | undefined> {
  const rows = await tx.query<{ digest: string }>(
    `select p.digest from manifest_child c join manifest p on p.id = c.parent_id
      where c.repository_id = $1 and c.child_digest = $2 and p.deleted_at is null limit 1`,
    [repositoryId, digest],
  )
  return rows[0]?.digest
}

/** Hides a manifest at once; its row and edges stay for `retentionMs`, so that it can come back. */
export async function hideManifest(tx: Transaction, id: number, retentionMs: number): Promise<void> {
  await tx.query(
    `update manifest set deleted_at = clock_timestamp(),
            lease_until = clock_timestamp() + $2 * interval '1 millisecond' where id = $1`,
    [id, retentionMs],
  )
}

/** Gives a manifest that lost a tag a finite lease, so that the sweep looks at it when that has run out. */
export async function unrootManifest(tx: Transaction, id: number, retentionMs: number): Promise<void> {
  await tx.query(
    `update manifest set lease_until = clock_timestamp() + $2 * interval '1 millisecond'
      where id = $1 and deleted_at is null
        and (lease_until = 'infinity' or lease_until < clock_timestamp() + $2 * interval '1 millisecond')`,
    [id, retentionMs],
  )
}

/** The same for the children and the referrers of a manifest that was deleted. */
export async function unrootDependants(
  tx: Transaction,
  repositoryId: number,
  manifest: { readonly manifest_id: number; readonly digest: Digest },
  retentionMs: number,
): Promise<void> {
  // Alternatives joined by `or` would look at every manifest of the repository. The caller has locked these.
  await tx.query(
    `update manifest set lease_until = clock_timestamp() + $4 * interval '1 millisecond'
      where deleted_at is null
        and (lease_until = 'infinity' or lease_until < clock_timestamp() + $4 * interval '1 millisecond')
        and id in (select id from manifest where repository_id = $1 and subject_digest = $3
                   union all
                   select c.id from manifest_child e
                     join manifest c on c.repository_id = e.repository_id and c.digest = e.child_digest
                    where e.parent_id = $2)`,
    [repositoryId, manifest.manifest_id, manifest.digest, retentionMs],
  )
}

/** A manifest that names a subject. */
export interface ReferrerRow {
  readonly digest: Digest
  readonly media_type: string
  readonly artifact_type: string | null
  readonly size: number
  readonly annotations: Readonly<Record<string, string>> | null
}

/**
 * Visible manifests whose subject is that digest, by digest after `last`; `artifactTypes` empty means all. Ends at
 * `limit` rows, or with the manifest with which the bytes of those before it reach `bytes`: annotations can be most of a
 * manifest, and what anybody pushed must fit in memory.
 */
export async function listReferrers(
  db: Queryable,
  repository: RepositoryName,
  subject: Digest,
  page: {
    readonly artifactTypes: readonly string[]
    readonly last: string
    readonly limit: number
    readonly bytes: number
  },
): Promise<readonly ReferrerRow[]> {
  return await db.query<ReferrerRow>(
    `with page as (
       select id, sum(size) over (order by digest) - size as before from (
         select m.id, m.digest, m.size
           from repository r join manifest m on m.repository_id = r.id
          where r.name = $1 and r.deleted_at is null and m.subject_digest = $2 and m.deleted_at is null
            and m.digest > $3 and (cardinality($4::text[]) = 0 or m.artifact_type = any($4::text[]))
          order by m.digest limit $5) f)
     select m.digest, m.media_type, m.artifact_type, m.size, m.annotations
       from page p join manifest m on m.id = p.id
      where p.before < $6 order by m.digest`,
    [repository, subject, page.last, page.artifactTypes, page.limit, page.bytes],
  )
}
