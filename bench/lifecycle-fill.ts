import pg from 'pg'
import { MANIFEST_TYPE } from './client.ts'

/** How large a registry is made. */
export interface Size {
  readonly repositories: number
  /** All in the one repository {@link TAGGED}. */
  readonly tags: number
}

/** The repository with all the tags, ten on each manifest. */
export const TAGGED = 'fill/tagged'
export const tagName = (place: number): string => `t${String(place).padStart(8, '0')}`
export const repositoryName = (place: number): string => `fill/r${String(place).padStart(8, '0')}`

/** Runs a text of several statements on a database, without time limits and without checking foreign keys row by row. */
export async function script(url: string, text: string): Promise<void> {
  const client = new pg.Client(url)
  await client.connect()
  try {
    await client.query(`set session_replication_role = replica; ${text}`)
  } finally {
    await client.end()
  }
}

/** A digest of a number, as an expression. */
const digest = (number: string): string => `'sha256:' || md5(${number}::text) || md5('x' || ${number})`

/** Makes repositories with an image each, and one with many tags. */
export async function fill(url: string, { repositories, tags }: Size): Promise<void> {
  const image = `convert_to('{"schemaVersion":2,"mediaType":"${MANIFEST_TYPE}","layers":[]}', 'UTF8')`
  await script(
    url,
    `insert into repository (name) select 'fill/r' || lpad(n::text, 8, '0') from generate_series(1, ${repositories}) n;
     insert into repository (name) values ('${TAGGED}');
     insert into manifest (repository_id, digest, media_type, size, payload, lease_until)
       select r.id, ${digest("('a' || r.id)")}, '${MANIFEST_TYPE}', octet_length(${image}), ${image}, 'infinity'
         from repository r where r.name <> '${TAGGED}';
     insert into manifest (repository_id, digest, media_type, size, payload, lease_until)
       select r.id, ${digest("('b' || n)")}, '${MANIFEST_TYPE}', octet_length(${image}), ${image}, 'infinity'
         from repository r, generate_series(1, ${Math.ceil(tags / 10)}) n where r.name = '${TAGGED}';
     insert into tag (repository_id, name, manifest_id)
       select m.repository_id, 'latest', m.id from manifest m join repository r on r.id = m.repository_id
        where r.name <> '${TAGGED}';
     insert into tag (repository_id, name, manifest_id)
       select m.repository_id, 't' || lpad(n::text, 8, '0'), m.id
         from generate_series(1, ${tags}) n
         join (select m.*, row_number() over (order by m.id) as place from manifest m
                 join repository r on r.id = m.repository_id where r.name = '${TAGGED}') m
           on m.place = 1 + (n - 1) / 10;
     analyze`,
  )
}

/** Makes blobs that nobody needs any more, with links whose promise is over; answers nothing. */
export async function addDead(url: string, count: number, note: string): Promise<void> {
  await script(
    url,
    `with made as (
       insert into blob (digest, size, store, storage_key)
       select ${digest(`('${note}' || n)`)}, 1000, 'filesystem', md5('${note}k' || n) from generate_series(1, ${count}) n
       returning id, digest)
     insert into repository_blob (repository_id, blob_id, digest, lease_until)
     select r.id, made.id, made.digest, 'epoch' from made, repository r where r.name = '${TAGGED}'`,
  )
}

/** Makes manifests in the repository of the tags that nothing keeps and whose time is over. */
export async function addUntagged(url: string, count: number, note: string): Promise<void> {
  await script(
    url,
    `insert into manifest (repository_id, digest, media_type, size, payload, lease_until)
     select r.id, ${digest(`('${note}' || n)`)}, '${MANIFEST_TYPE}', 2, '{}', 'epoch'
       from repository r, generate_series(1, ${count}) n where r.name = '${TAGGED}'`,
  )
}

/** Makes a manifest that many tags point to; answers its digest. */
export async function addPopular(url: string, tags: number, note: string): Promise<string> {
  const client = new pg.Client(url)
  await client.connect()
  try {
    await addUntagged(url, 1, note)
    const { rows } = await client.query<{ digest: string }>(
      `with one as (
         update manifest set lease_until = 'infinity' where digest = ${digest(`('${note}' || 1)`)} returning *),
       tagged as (
         insert into tag (repository_id, name, manifest_id)
         select repository_id, '${note}-' || n, id from one, generate_series(1, ${tags}) n)
       select digest from one`,
    )
    return rows[0]?.digest ?? ''
  } finally {
    await client.end()
  }
}
