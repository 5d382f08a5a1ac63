import type { RepositoryName, Tag } from '../oci/name.ts'
import type { Queryable, Transaction } from './database.ts'

/** Milliseconds since the upstream last said what the tag names; undefined where that is not known. */
export async function findConfirmationAge(db: Queryable, name: RepositoryName, tag: Tag): Promise<number | undefined> {
  const rows = await db.query<{ age_ms: number }>(
    `select (extract(epoch from clock_timestamp() - m.confirmed_at) * 1000)::float8 as age_ms
       from mirrored_tag m join repository r on r.id = m.repository_id
      where r.name = $1 and r.deleted_at is null and m.name = $2`,
    [name, tag],
  )
  return rows[0]?.age_ms
}

/** Notes that the upstream said now what the tag names. */
export async function confirmMirroredTag(tx: Transaction, name: RepositoryName, tag: Tag): Promise<void> {
  await tx.query(
    `insert into mirrored_tag (repository_id, name, confirmed_at, used_at)
     select id, $2, clock_timestamp(), clock_timestamp() from repository where name = $1 and deleted_at is null
     on conflict (repository_id, name) do update set confirmed_at = excluded.confirmed_at, used_at = excluded.used_at`,
    [name, tag],
  )
}

/** Notes that the tag was asked for now. */
export async function useMirroredTag(tx: Transaction, name: RepositoryName, tag: Tag): Promise<void> {
  await tx.query(
    `update mirrored_tag m set used_at = clock_timestamp() from repository r
      where r.id = m.repository_id and r.name = $1 and r.deleted_at is null and m.name = $2`,
    [name, tag],
  )
}

/** Up to `limit` tags of mirrors that nobody asked for since `keepMs` ago. */
export async function findUnusedMirroredTags(
  db: Queryable,
  keepMs: number,
  limit: number,
): Promise<readonly { readonly repository: RepositoryName; readonly tag: Tag }[]> {
  return await db.query<{ repository: RepositoryName; tag: Tag }>(
    `select r.name as repository, m.name as tag from mirrored_tag m join repository r on r.id = m.repository_id
      where m.used_at < clock_timestamp() - $1 * interval '1 millisecond' and r.deleted_at is null
      order by m.used_at limit $2`,
    [keepMs, limit],
  )
}

/** Forgets a tag that is still as unused as {@link findUnusedMirroredTags} says; false where somebody asked for it since. */
export async function forgetMirroredTag(
  tx: Transaction,
  name: RepositoryName,
  tag: Tag,
  keepMs: number,
): Promise<boolean> {
  const rows = await tx.query(
    `delete from mirrored_tag m using repository r
      where r.id = m.repository_id and r.name = $1 and r.deleted_at is null and m.name = $2
        and m.used_at < clock_timestamp() - $3 * interval '1 millisecond'
      returning m.name`,
    [name, tag, keepMs],
  )
  return rows.length > 0
}
