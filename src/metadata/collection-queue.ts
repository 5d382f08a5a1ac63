import type { Queryable } from './database.ts'
import { RETURNABLE } from './returnable.ts'
import { EXPIRED, ROOTED } from './sweep.ts'

// What the collector would do, read without any lock: for people who want to know before it does, and for gauges.

/** What waits for the collector. Counts are of rows. */
export interface CollectionQueue {
  /** Manifests and links whose promise has ended, and that have to be looked at. */
  readonly due: number
  /** Since when the longest of them waits, or null. */
  readonly oldest_due: Date | null
  /** Blobs that lost a link. */
  readonly unlinked: number
  /** Bytes that nothing names: all of them, and those whose grace is over. */
  readonly trash: number
  readonly trash_bytes: number
  readonly purgeable: number
  readonly purgeable_bytes: number
  /** Since when the longest of them could be purged, or null. */
  readonly oldest_purgeable: Date | null
}

/** What waits for the collector, now. Its cost is proportional to what waits. */
export async function measureQueue(db: Queryable): Promise<CollectionQueue> {
  const rows = await db.query<CollectionQueue>(
    `select d.due::int, d.oldest_due, u.unlinked::int, t.trash::int, t.trash_bytes::bigint,
            t.purgeable::int, t.purgeable_bytes::bigint, t.oldest_purgeable
       from (select count(*) as due, min(lease_until) as oldest_due
               from (select lease_until from manifest where ${EXPIRED}
                     union all
                     select lease_until from repository_blob where ${EXPIRED}) x) d,
            (select count(*) as unlinked from blob where unlinked_at is not null) u,
            (select count(*) as trash, coalesce(sum(size), 0) as trash_bytes,
                    count(*) filter (where purge_after < statement_timestamp()) as purgeable,
                    coalesce(sum(size) filter (where purge_after < statement_timestamp()), 0) as purgeable_bytes,
                    min(purge_after) filter (where purge_after < statement_timestamp()) as oldest_purgeable
               from trash) t`,
  )
  const row = rows[0]
  if (row === undefined) throw new Error('an aggregate answered no row')
  return row
}

/** The kinds of things that go. */
export type DueKind = 'upload' | 'manifest' | 'link' | 'blob' | 'bytes'

/** Something that the collector would take now. */
export interface DueRow {
  /** What the next page begins after. */
  readonly key: string
  readonly repository: string | null
  readonly digest: string | null
  readonly size: number | null
  /** When what kept it ended. */
  readonly since: Date
  /** Of a manifest: when it was deleted, where it was. */
  readonly deleted_at: Date | null
  /** Of a manifest: what it refers to. */
  readonly subject: string | null
  /** Of a link: whether it is the last one of its blob, whose bytes then go to the trash. */
  readonly is_last: boolean
}

const NO_DETAIL = 'null::timestamptz as deleted_at, null::text as subject, false as is_last'
const DOOMED = `m.${EXPIRED.replace('and ', 'and m.')} and not (${ROOTED})`

/** `materialized` keeps the planner from walking a whole table in the order of its keys for the few rows that are due. */
const QUERIES: Readonly<Record<DueKind, string>> = {
  upload: `
    with due as materialized (
      select id::text as key, repository_id, "offset" as size, expires_at as since from upload
       where expires_at < statement_timestamp() and (lease_until is null or lease_until < clock_timestamp()))
    select d.key, r.name as repository, null::text as digest, d.size, d.since, ${NO_DETAIL}
      from due d join repository r on r.id = d.repository_id where d.key > $1 order by d.key limit $2`,
  manifest: `
    with due as materialized (
      select lpad(m.id::text, 20, '0') as key, m.repository_id, m.digest, m.size, m.lease_until, m.deleted_at,
             m.subject_digest
        from manifest m where ${DOOMED})
    select d.key, r.name as repository, d.digest, d.size, d.lease_until as since, d.deleted_at,
           d.subject_digest as subject, false as is_last
      from due d join repository r on r.id = d.repository_id and not (${RETURNABLE})
     where d.key > $1 order by d.key limit $2`,
  link: `
    with due as materialized (
      select lpad(l.repository_id::text, 20, '0') || lpad(l.blob_id::text, 20, '0') as key, l.*
        from repository_blob l
       where l.${EXPIRED.replace('and ', 'and l.')}
         and not exists (select from manifest_blob e join manifest m on m.id = e.manifest_id
                          where e.repository_id = l.repository_id and e.digest = l.digest and not (${DOOMED})))
    select d.key, r.name as repository, d.digest, b.size, d.lease_until as since, null::timestamptz as deleted_at,
           null::text as subject,
           not exists (select from repository_blob o where o.blob_id = d.blob_id and o.repository_id <> d.repository_id)
             as is_last
      from due d join repository r on r.id = d.repository_id and not (${RETURNABLE}) join blob b on b.id = d.blob_id
     where d.key > $1 order by d.key limit $2`,
  blob: `
    with due as materialized (
      select lpad(b.id::text, 20, '0') as key, b.digest, b.size, b.unlinked_at as since from blob b
       where b.unlinked_at is not null and not exists (select from repository_blob l where l.blob_id = b.id offset 0))
    select d.key, null::text as repository, d.digest, d.size, d.since, ${NO_DETAIL}
      from due d where d.key > $1 order by d.key limit $2`,
  bytes: `
    with due as materialized (
      select store || ' ' || storage_key as key, digest, size, purge_after as since from trash
       where purge_after < statement_timestamp())
    select d.key, null::text as repository, d.digest, d.size, d.since, ${NO_DETAIL}
      from due d where d.key collate "C" > $1 order by d.key collate "C" limit $2`,
}

/** A page of what the collector would take now, of one kind, after the key `last`. */
export async function listDue(db: Queryable, kind: DueKind, last: string, limit: number): Promise<readonly DueRow[]> {
  return await db.query<DueRow>(QUERIES[kind], [last, limit])
}
