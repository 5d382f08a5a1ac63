import type { Transaction } from './database.ts'

/**
 * Takes the repository that was deleted longest ago, more than `graceMs`, for its rows to be removed: once this is
 * committed it cannot come back. One that is being drained is taken again. Passes over those with ids up to `afterId`,
 * those that somebody holds or brings back, and those of which quotas have still to be told.
 */
export async function beginDrain(tx: Transaction, graceMs: number, afterId: number): Promise<number | undefined> {
  const rows = await tx.query<{ id: number }>(
    `update repository set draining_at = coalesce(draining_at, clock_timestamp())
      where id = (select id from repository
                   where deleted_at < clock_timestamp() - $1 * interval '1 millisecond' and id > $2
                     and leaving = '{}' and coalesce(returning_until < clock_timestamp(), true)
                   order by id limit 1 for update skip locked)
      returning id`,
    [graceMs, afterId],
  )
  return rows[0]?.id
}

/** Locks a repository that is being drained; false where another process works on it or has finished. */
export async function lockDraining(tx: Transaction, id: number): Promise<boolean> {
  const rows = await tx.query(
    'select from repository where id = $1 and draining_at is not null for update skip locked',
    [id],
  )
  return rows.length === 1
}

/** Removes up to `limit` tags and as many entries of their history; answers how many rows went. */
export async function drainTags(tx: Transaction, repositoryId: number, limit: number): Promise<number> {
  const tags = await tx.query(
    `delete from tag where repository_id = $1
        and name in (select name from tag where repository_id = $1 limit $2) returning name`,
    [repositoryId, limit],
  )
  const history = await tx.query(
    `delete from tag_history where id in (
       select id from tag_history where repository_id = $1 limit $2) returning id`,
    [repositoryId, limit],
  )
  return tags.length + history.length
}

/** Removes up to `limit` manifests, which no tag points to any more, with their edges; answers how many. */
export async function drainManifests(tx: Transaction, repositoryId: number, limit: number): Promise<number> {
  const rows = await tx.query<{ id: number }>(
    `select id from manifest where repository_id = $1 order by id limit $2 for update skip locked`,
    [repositoryId, limit],
  )
  const ids = rows.map(row => row.id)
  await tx.query(
    'update manifest_child set child_id = null where repository_id = $1 and child_id = any($2::bigint[])',
    [repositoryId, ids],
  )
  await tx.query('delete from manifest where id = any($1::bigint[])', [ids])
  return ids.length
}

/** Removes up to `limit` links, once no manifest is left to name them, and marks their blobs for the sweep; answers how many. */
export async function drainLinks(tx: Transaction, repositoryId: number, limit: number): Promise<number> {
  const rows = await tx.query<{ blob_id: number }>(
    `delete from repository_blob where repository_id = $1
        and blob_id in (select blob_id from repository_blob where repository_id = $1 order by blob_id limit $2
                           for update skip locked)
        and not exists (select from manifest where repository_id = $1)
      returning blob_id`,
    [repositoryId, limit],
  )
  if (rows.length === 0) return 0
  await tx.query(
    `update blob set unlinked_at = clock_timestamp()
      where id in (select id from blob where id = any($1::bigint[]) order by id for no key update)`,
    [rows.map(row => row.blob_id)],
  )
  return rows.length
}

/** Ends up to `limit` upload sessions, whose bytes go to the trash for `graceMs`; answers how many. */
export async function drainUploads(
  tx: Transaction,
  repositoryId: number,
  limit: number,
  graceMs: number,
): Promise<number> {
  const rows = await tx.query(
    `with due as (select id from upload where repository_id = $1 limit $2 for update skip locked),
     gone as (delete from upload u using due where u.id = due.id returning u.store, u.store_state, u."offset")
     insert into trash (store, storage_key, state, size, purge_after)
     select store, store_state ->> 'key', store_state, "offset",
            clock_timestamp() + $3 * interval '1 millisecond' from gone
     returning storage_key`,
    [repositoryId, limit, graceMs],
  )
  return rows.length
}

/** Removes an emptied repository; false while rows of it are left. */
export async function endDrain(tx: Transaction, repositoryId: number): Promise<boolean> {
  const rows = await tx.query(
    `delete from repository r where id = $1
        and not exists (select from manifest m where m.repository_id = r.id)
        and not exists (select from repository_blob l where l.repository_id = r.id)
        and not exists (select from upload u where u.repository_id = r.id)
        and not exists (select from tag_history h where h.repository_id = r.id)
      returning id`,
    [repositoryId],
  )
  return rows.length === 1
}
