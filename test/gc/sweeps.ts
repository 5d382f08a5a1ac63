import { sweep } from '../../src/gc/sweep.ts'
import type { Transaction } from '../../src/metadata/database.ts'
import {
  findUnrooted,
  lockExpiredManifests,
  lockUnlinkedBlobs,
  markUnlinked,
  releaseDependants,
} from '../../src/metadata/sweep.ts'
import { discardExpiredUploads } from '../../src/metadata/uploads.ts'
import type { Sweep } from './model-world.ts'

const sweepAll: Sweep = async (db, options) => await sweep(db, options, () => Promise.resolve())

const real: Sweep = async (db, options) => {
  await db.transaction(tx => discardExpiredUploads(tx, options.batch, options.trashGraceMs))
  return await sweepAll(db, options)
}

/** Judges and deletes links in one statement: its `not exists` reads a snapshot from before the rows were locked. */
const merged: Sweep = async (db, options) => {
  await db.transaction(async tx => {
    const gone = await tx.query<{ blob_id: number }>(
      `with due as (
         select repository_id, blob_id, digest from repository_blob where lease_until < clock_timestamp() limit $1)
       delete from repository_blob l using due
        where l.repository_id = due.repository_id and l.blob_id = due.blob_id
          and not exists (select from manifest_blob e
                           where e.repository_id = due.repository_id and e.digest = due.digest)
       returning l.blob_id`,
      [options.batch],
    )
    await markUnlinked(
      tx,
      gone.map(row => row.blob_id),
    )
  })
  return await real(db, options)
}

/** Gives the bytes away for disposal in a transaction that has removed no row yet. */
const early: Sweep = async (db, options) => {
  const due = await db.transaction(async tx => {
    const { ids } = await lockUnlinkedBlobs(tx, options.batch)
    await tx.query(
      `insert into trash (store, storage_key, digest, size, purge_after)
       select store, storage_key, digest, size, clock_timestamp() from blob where id = any($1::bigint[])
       on conflict do nothing`,
      [ids],
    )
    return ids
  })
  return due.length > 0 ? { blobs: due.length } : await real(db, options)
}

/** Takes an index to name only the children that were there when it was pushed: those that came later look unrooted. */
const bound: Sweep = async (db, options) => {
  await db.transaction(async tx => {
    const expired = await lockExpiredManifests(tx, options.batch)
    const ids = expired.map(manifest => manifest.id)
    const free = [...(await findUnrooted(tx, ids)), ...(await findUnbound(tx, ids))]
    const held = await releaseDependants(tx, free, options.leaseMs)
    await tx.query('delete from manifest where id = any($1::bigint[])', [free.filter(id => !held.has(id))])
  })
  return await real(db, options)
}

async function findUnbound(tx: Transaction, ids: readonly number[]): Promise<readonly number[]> {
  const rows = await tx.query<{ id: number }>(
    `select m.id from manifest m
      where m.id = any($1::bigint[])
        and not exists (select from tag t where t.repository_id = m.repository_id and t.manifest_id = m.id)
        and not exists (select from manifest_child e where e.repository_id = m.repository_id and e.child_id = m.id)
        and not exists (select from manifest s where s.repository_id = m.repository_id and s.digest = m.subject_digest
                           and s.deleted_at is null)`,
    [ids],
  )
  return rows.map(row => row.id)
}

/** Ends expired uploads without their epoch: looks, disposes of the bytes, then removes the row, whoever is at it. */
const careless: Sweep = async (db, options) => {
  const due = await db.query<{ id: string; storage_key: string; store: string }>(
    `select id, store, store_state ->> 'key' as storage_key from upload where expires_at < clock_timestamp() limit $1`,
    [options.batch],
  )
  await db.transaction(tx =>
    tx.query(
      `insert into trash (store, storage_key, purge_after)
       select s, k, clock_timestamp() from unnest($1::text[], $2::text[]) x (s, k) on conflict do nothing`,
      [due.map(row => row.store), due.map(row => row.storage_key)],
    ),
  )
  await db.transaction(tx => tx.query('delete from upload where id = any($1::uuid[])', [due.map(row => row.id)]))
  return await sweepAll(db, options)
}

/** The real sweep, and those that a model worth having must find guilty. */
export const SWEEPS = { real, merged, early, bound, careless } as const satisfies Record<string, Sweep>

/** A key of {@link SWEEPS}. */
export type SweepName = keyof typeof SWEEPS
