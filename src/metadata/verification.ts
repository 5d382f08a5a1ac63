import type { Digest } from '../oci/digest.ts'
import type { Queryable, Transaction } from './database.ts'

// A change of a blob's row marks it for the collector, as in markUnlinked.

/** A blob whose bytes are to be read. */
export interface StoredBlob {
  readonly id: number
  readonly digest: Digest
  readonly size: number
  readonly store: string
  readonly storage_key: string
  readonly damaged: boolean
}

/** The next blobs of these stores by id, also those that are known to be damaged. */
export async function nextBlobs(
  db: Queryable,
  stores: readonly string[],
  after: number,
  limit: number,
): Promise<readonly StoredBlob[]> {
  return await db.query<StoredBlob>(
    `select id, digest, size, store, storage_key, damaged_at is not null as damaged from blob
      where id > $1 and store = any($2) order by id limit $3`,
    [after, stores, limit],
  )
}

/**
 * Takes a blob out of sight until somebody pushes it again. False where its bytes are others by now, or it is gone or
 * damaged already.
 */
export async function quarantineBlob(tx: Transaction, blob: StoredBlob): Promise<boolean> {
  const rows = await tx.query(
    `update blob set damaged_at = clock_timestamp(), unlinked_at = clock_timestamp()
      where id = $1 and storage_key = $2 and damaged_at is null returning id`,
    [blob.id, blob.storage_key],
  )
  return rows.length === 1
}

/** Shows a blob again whose bytes are sound after all. False where its bytes are others by now, or it is gone or sound. */
export async function releaseBlob(tx: Transaction, blob: StoredBlob): Promise<boolean> {
  const rows = await tx.query(
    `update blob set damaged_at = null, unlinked_at = clock_timestamp()
      where id = $1 and storage_key = $2 and damaged_at is not null returning id`,
    [blob.id, blob.storage_key],
  )
  return rows.length === 1
}

/** How many blobs are damaged. */
export async function countDamaged(db: Queryable): Promise<number> {
  const rows = await db.query<{ damaged: number }>(
    'select count(*)::int as damaged from blob where damaged_at is not null',
  )
  return rows[0]?.damaged ?? 0
}

/** A damaged blob, with one repository that has it. */
export interface DamagedBlob {
  readonly id: number
  readonly digest: Digest
  readonly size: number
  readonly damaged_at: Date
  readonly repository: string | null
}

/** A page of damaged blobs by id. */
export async function listDamagedBlobs(db: Queryable, after: number, limit: number): Promise<readonly DamagedBlob[]> {
  return await db.query<DamagedBlob>(
    `select b.id, b.digest, b.size, b.damaged_at,
            (select r.name from repository_blob l join repository r on r.id = l.repository_id
              where l.blob_id = b.id and r.deleted_at is null order by r.name limit 1) as repository
       from blob b where b.damaged_at is not null and b.id > $1 order by b.id limit $2`,
    [after, limit],
  )
}
