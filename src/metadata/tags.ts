import type { Digest } from '../oci/digest.ts'
import type { Tag } from '../oci/name.ts'
import type { Queryable, Transaction } from './database.ts'

/** Tags of a repository in byte order, after `last`. */
export async function listTags(db: Queryable, repositoryId: number, last: string, limit: number): Promise<string[]> {
  const rows = await db.query<{ name: string }>(
    'select name from tag where repository_id = $1 and name > $2 order by name limit $3',
    [repositoryId, last, limit],
  )
  return rows.map(row => row.name)
}

/** Makes the writers of one tag wait for each other from here to the end of the transaction, also where the tag is new. */
export async function serialiseTag(tx: Transaction, repositoryId: number, name: Tag): Promise<void> {
  await tx.query(
    `select pg_advisory_xact_lock_shared(hashtextextended($1, 0)), pg_advisory_xact_lock(hashtextextended($2, 0))`,
    [`tags ${repositoryId}`, `tag ${repositoryId} ${name}`],
  )
}

/** The same for all tags of a repository at once: for who writes more of them than can be locked one by one. */
export async function serialiseTags(tx: Transaction, repositoryId: number): Promise<void> {
  await tx.query('select pg_advisory_xact_lock(hashtextextended($1, 0))', [`tags ${repositoryId}`])
}

/** A manifest that a tag points or pointed to. */
export interface TagTarget {
  readonly manifest_id: number
  readonly digest: Digest
}

/** What a tag points to. */
export async function targetOf(db: Queryable, repositoryId: number, name: Tag): Promise<TagTarget | undefined> {
  const rows = await db.query<TagTarget>(
    `select t.manifest_id, m.digest from tag t join manifest m on m.id = t.manifest_id
      where t.repository_id = $1 and t.name = $2`,
    [repositoryId, name],
  )
  return rows[0]
}

/** What changed a tag, as its history says it. */
export type TagAction = 'push' | 'delete' | 'manifest-delete' | 'undelete' | 'rollback'

/** What {@link pointTag} did. `unchanged`: the tag pointed there already. */
export type PointedTag =
  | { readonly change: 'created' | 'unchanged' }
  | { readonly change: 'moved'; readonly former: TagTarget }

/** Points a tag at a manifest and keeps its history. */
export async function pointTag(
  tx: Transaction,
  tag: {
    readonly repositoryId: number
    readonly name: Tag
    readonly manifestId: number
    readonly digest: Digest
    readonly principal: string | undefined
    readonly action: TagAction
  },
): Promise<PointedTag> {
  const created = await tx.query(
    `with created as (
       insert into tag (repository_id, name, manifest_id) values ($1, $2, $3)
       on conflict (repository_id, name) do nothing returning name),
     kept as (
       insert into tag_history (repository_id, name, new_digest, changed_by, action)
       select $1, name, $4, $5, $6 from created)
     select name from created`,
    [tag.repositoryId, tag.name, tag.manifestId, tag.digest, tag.principal ?? null, tag.action],
  )
  if (created.length > 0) return { change: 'created' }
  const rows = await tx.query<TagTarget>(
    `select t.manifest_id, m.digest from tag t join manifest m on m.id = t.manifest_id
        where t.repository_id = $1 and t.name = $2 for update of t`,
    [tag.repositoryId, tag.name],
  )
  const former = rows[0]
  if (former === undefined) return await pointTag(tx, tag)
  await tx.query(
    'update tag set manifest_id = $3, updated_at = clock_timestamp() where repository_id = $1 and name = $2',
    [tag.repositoryId, tag.name, tag.manifestId],
  )
  if (former.manifest_id === tag.manifestId) return { change: 'unchanged' }
  await tx.query(
    `insert into tag_history (repository_id, name, old_digest, new_digest, changed_by, action)
     values ($1, $2, $3, $4, $5, $6)`,
    [tag.repositoryId, tag.name, former.digest, tag.digest, tag.principal ?? null, tag.action],
  )
  return { change: 'moved', former }
}

/**
 * Removes one tag, keeps its history, and answers what it pointed to. The caller has serialised its writers and locked
 * its manifest, in this order, as pushes do.
 */
export async function removeTag(
  tx: Transaction,
  repositoryId: number,
  name: Tag,
  principal: string | undefined,
): Promise<TagTarget | undefined> {
  const rows = await tx.query<TagTarget>(
    `with gone as (delete from tag where repository_id = $1 and name = $2 returning manifest_id),
     target as (select m.id as manifest_id, m.digest from manifest m join gone on gone.manifest_id = m.id),
     kept as (insert into tag_history (repository_id, name, old_digest, changed_by, action)
              select $1, $2, digest, $3, 'delete' from target)
     select manifest_id, digest from target`,
    [repositoryId, name, principal ?? null],
  )
  return rows[0]
}

/** Names of the tags of a locked manifest, in byte order. */
export async function tagsOf(db: Queryable, repositoryId: number, manifestId: number): Promise<string[]> {
  const rows = await db.query<{ name: string }>(
    'select name from tag where repository_id = $1 and manifest_id = $2 order by name',
    [repositoryId, manifestId],
  )
  return rows.map(row => row.name)
}

/** Removes every tag of a manifest in one statement, keeps their history, and answers their number. */
export async function removeTagsOf(
  tx: Transaction,
  repositoryId: number,
  manifest: TagTarget,
  principal: string | undefined,
): Promise<number> {
  const rows = await tx.query<{ removed: number }>(
    `with gone as (delete from tag where repository_id = $1 and manifest_id = $2 returning name),
     kept as (insert into tag_history (repository_id, name, old_digest, changed_by, action)
              select $1, name, $3, $4, 'manifest-delete' from gone)
     select count(*)::int as removed from gone`,
    [repositoryId, manifest.manifest_id, manifest.digest, principal ?? null],
  )
  return rows[0]?.removed ?? 0
}
