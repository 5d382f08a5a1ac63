import { sweep } from '../../src/gc/sweep.ts'
import { lockUnlinkedBlobs, markUnlinked } from '../../src/metadata/sweep.ts'
import type { Sweep } from './model.ts'

const real: Sweep = async (db, options) => await sweep(db, options, () => Promise.resolve())

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
    const ids = await lockUnlinkedBlobs(tx, options.batch)
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

/** The real sweep, and those that a model worth having must find guilty. */
export const SWEEPS = { real, merged, early } as const satisfies Record<string, Sweep>

/** A key of {@link SWEEPS}. */
export type SweepName = keyof typeof SWEEPS
