import type { Database, Queryable, Transaction } from './database.ts'

/** What was pulled how often since the last time that was written. */
export interface PullCount {
  readonly repositoryId: number
  /** The manifest that was got; undefined: a tag was only looked at. */
  readonly manifestId: number | undefined
  /** The tag that was asked for; undefined: a digest was. */
  readonly tag: string | undefined
  readonly pulls: number
  /** How long ago the last one was, in milliseconds: times are by the database's clock. */
  readonly agoMs: number
}

/**
 * Adds up what was counted, in one statement, whose order is the same in every process; times only move forward. Where the
 * outcome of the commit is unknown, adding the same again counts it twice.
 */
export async function addPulls(tx: Transaction, counts: readonly PullCount[]): Promise<void> {
  await tx.query(
    `with pulled as (
       select repository_id, manifest_id, tag, pulls, clock_timestamp() - ago * interval '1 millisecond' as at
         from unnest($1::bigint[], $2::bigint[], $3::text[], $4::int[], $5::float8[])
           as p (repository_id, manifest_id, tag, pulls, ago)),
     tags as (
       insert into tag_pull as t (repository_id, name, pulls, last_pulled_at)
       select repository_id, tag, sum(pulls), max(at) from pulled where tag is not null group by 1, 2 order by 1, 2
       on conflict (repository_id, name) do update
          set pulls = t.pulls + excluded.pulls, last_pulled_at = greatest(t.last_pulled_at, excluded.last_pulled_at))
     insert into manifest_pull as m (manifest_id, pulls, last_pulled_at)
     select manifest_id, sum(pulls), max(at) from pulled where manifest_id is not null group by 1 order by 1
     on conflict (manifest_id) do update
        set pulls = m.pulls + excluded.pulls, last_pulled_at = greatest(m.last_pulled_at, excluded.last_pulled_at)`,
    [
      counts.map(count => count.repositoryId),
      counts.map(count => count.manifestId ?? null),
      counts.map(count => count.tag ?? null),
      counts.map(count => count.pulls),
      counts.map(count => count.agoMs),
    ],
  )
}

/** Where {@link prunePulls} has got to. */
export interface PrunedTo {
  readonly repositoryId: number
  readonly name: string
  readonly manifestId: number
}

/** Where it begins. */
export const PRUNE_START: PrunedTo = { repositoryId: 0, name: '', manifestId: 0 }

/** Counts of what is gone stay this long, for the case that it comes back. */
const KEEP_DAYS = 90

/**
 * Removes, among the next `limit` counts of tags and of manifests each, those of tags and manifests that are gone and
 * were last pulled long ago. Answers where to go on; undefined at the end.
 */
export async function prunePulls(db: Database, after: PrunedTo, limit: number): Promise<PrunedTo | undefined> {
  return await db.transaction(async tx => {
    const tags = await tx.query<{ repository_id: number; name: string }>(
      `select repository_id, name from tag_pull where (repository_id, name) > ($1, $2)
        order by repository_id, name limit $3`,
      [after.repositoryId, after.name, limit],
    )
    await tx.query(
      `delete from tag_pull p using unnest($1::bigint[], $2::text[]) as s (repository_id, name)
        where p.repository_id = s.repository_id and p.name = s.name
          and p.last_pulled_at < clock_timestamp() - $3 * interval '1 day'
          and not exists (select from tag t where t.repository_id = p.repository_id and t.name = p.name)`,
      [tags.map(tag => tag.repository_id), tags.map(tag => tag.name), KEEP_DAYS],
    )
    const manifests = await tx.query<{ manifest_id: number }>(
      'select manifest_id from manifest_pull where manifest_id > $1 order by manifest_id limit $2',
      [after.manifestId, limit],
    )
    await tx.query(
      `delete from manifest_pull p where p.manifest_id = any($1::bigint[])
          and p.last_pulled_at < clock_timestamp() - $2 * interval '1 day'
          and not exists (select from manifest m where m.id = p.manifest_id)`,
      [manifests.map(manifest => manifest.manifest_id), KEEP_DAYS],
    )
    const [tag, manifest] = [tags.at(-1), manifests.at(-1)]
    if (tags.length < limit && manifests.length < limit) return undefined
    return {
      repositoryId: tag?.repository_id ?? after.repositoryId,
      name: tag?.name ?? after.name,
      manifestId: manifest?.manifest_id ?? after.manifestId,
    }
  })
}

/** How often tags of a repository were pulled, by name after `last`; the time is null where one was not yet. */
export async function listTagPulls(
  db: Queryable,
  repositoryId: number,
  last: string,
  limit: number,
): Promise<readonly { readonly name: string; readonly pulls: number; readonly last_pulled_at: Date | null }[]> {
  return await db.query<{ name: string; pulls: number; last_pulled_at: Date | null }>(
    `select t.name, coalesce(p.pulls, 0) as pulls, p.last_pulled_at
       from tag t left join tag_pull p on p.repository_id = t.repository_id and p.name = t.name
      where t.repository_id = $1 and t.name > $2 order by t.name limit $3`,
    [repositoryId, last, limit],
  )
}
