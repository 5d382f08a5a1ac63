import type { RepositoryName } from '../oci/name.ts'
import type { Transaction } from './database.ts'
import { type Usage, insertUsageSql, isNothing, usageValues } from './usage.ts'

/** What can change visibly. */
export type EventKind =
  | 'manifest.push'
  | 'manifest.delete'
  | 'manifest.undelete'
  | 'manifest.expire'
  | 'manifest.evict'
  | 'blob.evict'
  | 'tag.move'
  | 'tag.delete'
  | 'blob.delete'
  | 'repository.delete'
  | 'repository.undelete'

/** Writes one visible change in the change's own transaction, with what it means for usage where that is told. */
export async function insertEvent(
  tx: Transaction,
  kind: EventKind,
  repository: RepositoryName,
  detail: Readonly<Record<string, unknown>>,
  usage?: { readonly repositoryId: number; readonly change: Usage },
): Promise<void> {
  const values = [kind, repository, JSON.stringify(detail)]
  if (usage === undefined || isNothing(usage.change)) {
    await tx.query('insert into event (kind, repository, detail) values ($1, $2, $3)', values)
    return
  }
  await tx.query(
    `with counted as (${insertUsageSql(4)}) insert into event (kind, repository, detail) values ($1, $2, $3)`,
    [...values, ...usageValues(usage.repositoryId, usage.change)],
  )
}

/** Writes many visible changes in one statement, in the transaction of the changes. */
export async function insertEvents(
  tx: Transaction,
  events: readonly {
    readonly kind: EventKind
    readonly repository: string
    readonly detail: Readonly<Record<string, unknown>>
  }[],
): Promise<void> {
  if (events.length === 0) return
  await tx.query(
    'insert into event (kind, repository, detail) select * from unnest($1::text[], $2::text[], $3::jsonb[])',
    [
      events.map(event => event.kind),
      events.map(event => event.repository),
      events.map(event => JSON.stringify(event.detail)),
    ],
  )
}

/** Removes up to `limit` events older than `ageMs`; answers how many. */
export async function pruneEvents(tx: Transaction, ageMs: number, limit: number): Promise<number> {
  const rows = await tx.query(
    `delete from event where seq in (
       select seq from event where at < clock_timestamp() - $1 * interval '1 millisecond'
        order by at limit $2 for update skip locked)
     returning seq`,
    [ageMs, limit],
  )
  return rows.length
}
