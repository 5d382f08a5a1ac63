import type { Digest } from '../oci/digest.ts'
import type { Tag } from '../oci/name.ts'
import type { Queryable, Transaction } from './database.ts'
import type { TagAction, TagTarget } from './tags.ts'

/** One change of a tag. Without an old digest it was made, without a new one it was removed. */
export interface TagHistoryRow {
  readonly id: number
  readonly old_digest: Digest | null
  readonly new_digest: Digest | null
  readonly changed_at: Date
  readonly changed_by: string | null
  /** Null in history that is older than the column. */
  readonly action: TagAction | null
}

/** Changes of a tag before the one of id `before` (all, where undefined), newest first. */
export async function listTagHistory(
  db: Queryable,
  tag: { readonly repositoryId: number; readonly name: Tag },
  before: number | undefined,
  limit: number,
): Promise<readonly TagHistoryRow[]> {
  return await db.query<TagHistoryRow>(
    `select id, old_digest, new_digest, changed_at, changed_by, action from tag_history
      where repository_id = $1 and name = $2 and ($3::bigint is null or id < $3)
      order by id desc limit $4`,
    [tag.repositoryId, tag.name, before ?? null, limit],
  )
}

/** What a tag pointed to when it was removed last. */
export async function lastRemoved(db: Queryable, repositoryId: number, name: Tag): Promise<Digest | undefined> {
  const rows = await db.query<{ old_digest: Digest }>(
    `select old_digest from tag_history where repository_id = $1 and name = $2 and new_digest is null
      order by id desc limit 1`,
    [repositoryId, name],
  )
  return rows[0]?.old_digest
}

/** What a tag pointed to `steps` changes ago (1: before the last one). */
export async function formerDigest(
  db: Queryable,
  repositoryId: number,
  name: Tag,
  steps: number,
): Promise<Digest | undefined> {
  const rows = await db.query<{ old_digest: Digest }>(
    `select old_digest from tag_history where repository_id = $1 and name = $2 and old_digest is not null
      order by id desc offset $3 limit 1`,
    [repositoryId, name, steps - 1],
  )
  return rows[0]?.old_digest
}

/** Whether a tag has ever pointed to that digest, as far as its history goes back. */
export async function hasPointedTo(db: Queryable, repositoryId: number, name: Tag, digest: Digest): Promise<boolean> {
  const rows = await db.query(
    `select from tag_history where repository_id = $1 and name = $2 and (old_digest = $3 or new_digest = $3) limit 1`,
    [repositoryId, name, digest],
  )
  return rows.length > 0
}

/** Tags that were removed together with a manifest and have not changed since, in byte order. */
export async function tagsRemovedWith(db: Queryable, repositoryId: number, digest: Digest): Promise<readonly Tag[]> {
  const rows = await db.query<{ name: Tag }>(
    `select distinct h.name from tag_history h
      where h.repository_id = $1 and h.old_digest = $2 and h.new_digest is null and h.action = 'manifest-delete'
        and not exists (select from tag_history l
                         where l.repository_id = h.repository_id and l.name = h.name and l.id > h.id)
      order by h.name`,
    [repositoryId, digest],
  )
  return rows.map(row => row.name)
}

/** How many tags one statement of {@link restoreTags} writes: all of them could take longer than a statement may. */
const RESTORE_BATCH = 5_000

/** Points those of these tags that are free at a locked manifest; answers which. */
export async function restoreTags(
  tx: Transaction,
  repositoryId: number,
  names: readonly Tag[],
  target: TagTarget,
  principal: string | undefined,
): Promise<readonly Tag[]> {
  const restored: Tag[] = []
  for (let start = 0; start < names.length; start += RESTORE_BATCH) {
    const batch = names.slice(start, start + RESTORE_BATCH)
    restored.push(...(await restoreBatch(tx, repositoryId, batch, target, principal)))
  }
  return restored
}

async function restoreBatch(
  tx: Transaction,
  repositoryId: number,
  names: readonly Tag[],
  target: TagTarget,
  principal: string | undefined,
): Promise<readonly Tag[]> {
  const rows = await tx.query<{ name: Tag }>(
    `with made as (
       insert into tag (repository_id, name, manifest_id)
       select $1, name, $3 from unnest($2::text[]) as n (name) order by name collate "C"
       on conflict (repository_id, name) do nothing returning name),
     kept as (insert into tag_history (repository_id, name, new_digest, changed_by, action)
              select $1, name, $4, $5, 'undelete' from made)
     select name from made order by name`,
    [repositoryId, names, target.manifest_id, target.digest, principal ?? null],
  )
  return rows.map(row => row.name)
}

/** Removes those of the first `limit` changes that are older than `ageMs`; answers how many. */
export async function pruneTagHistory(tx: Transaction, ageMs: number, limit: number): Promise<number> {
  const rows = await tx.query(
    `delete from tag_history where id in (
       select id from (select id, changed_at from tag_history order by id limit $2 for update skip locked) h
        where changed_at < clock_timestamp() - $1 * interval '1 millisecond')
     returning id`,
    [ageMs, limit],
  )
  return rows.length
}
