import type { Transaction } from './database.ts'
import { type ExpiredLink, type ExpiredManifest, postponeManifests } from './sweep.ts'

/** Whether `r`, a repository, is deleted and can come back: what is in it stays as it is until its drain begins. */
export const RETURNABLE = 'r.deleted_at is not null and r.draining_at is null'

/** Looks again after `inMs` at those of these locked manifests whose repository can come back; answers the others. */
export async function postponeReturnableManifests(
  tx: Transaction,
  manifests: readonly ExpiredManifest[],
  inMs: number,
): Promise<readonly ExpiredManifest[]> {
  const repositories = await returnable(tx, manifests)
  if (repositories.size === 0) return manifests
  const { true: postponed = [], false: others = [] } = Object.groupBy(manifests, ({ repository_id: id }) =>
    repositories.has(id) ? 'true' : 'false',
  )
  await postponeManifests(
    tx,
    postponed.map(({ id }) => id),
    inMs,
  )
  return others
}

/** The same for links. */
export async function postponeReturnableLinks(
  tx: Transaction,
  links: readonly ExpiredLink[],
  inMs: number,
): Promise<readonly ExpiredLink[]> {
  const repositories = await returnable(tx, links)
  if (repositories.size === 0) return links
  await tx.query(
    `update repository_blob l set lease_until = clock_timestamp() + $4 * interval '1 millisecond'
      where (l.repository_id, l.blob_id) in (select * from unnest($1::bigint[], $2::bigint[]))
        and l.repository_id = any($3::bigint[])`,
    [links.map(link => link.repository_id), links.map(link => link.blob_id), [...repositories], inMs],
  )
  return links.filter(({ repository_id: id }) => !repositories.has(id))
}

async function returnable(
  tx: Transaction,
  rows: readonly { readonly repository_id: number }[],
): Promise<ReadonlySet<number>> {
  const found = await tx.query<{ id: number }>(
    `select r.id from repository r where r.id = any($1::bigint[]) and ${RETURNABLE}`,
    [[...new Set(rows.map(row => row.repository_id))]],
  )
  return new Set(found.map(({ id }) => id))
}
