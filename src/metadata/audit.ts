import { storable } from '../oci/text.ts'
import type { Queryable, Transaction } from './database.ts'

/** One thing that was done or refused. */
export interface AuditRow {
  readonly id: number
  readonly at: Date
  readonly kind: string
  readonly outcome: 'ok' | 'refused'
  readonly actor: string
  readonly client: string | null
  readonly request_id: string | null
  readonly detail: Readonly<Record<string, unknown>>
}

/** What {@link insertAudit} writes; never a secret. */
export interface NewAudit {
  readonly kind: string
  readonly outcome: 'ok' | 'refused'
  readonly actorId?: number
  readonly actor: string
  readonly client?: string
  readonly requestId?: string
  readonly detail: Readonly<Record<string, unknown>>
}

/** Records what was done, in the transaction that does it. */
export async function insertAudit(tx: Transaction, entries: readonly NewAudit[]): Promise<void> {
  await tx.query(
    `insert into audit (kind, outcome, actor_id, actor, client, request_id, detail)
     select * from unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::jsonb[])`,
    [
      entries.map(entry => entry.kind),
      entries.map(entry => entry.outcome),
      entries.map(entry => entry.actorId ?? null),
      entries.map(entry => entry.actor),
      entries.map(entry => entry.client ?? null),
      entries.map(entry => entry.requestId ?? null),
      entries.map(entry => jsonOf(entry.detail)),
    ],
  )
}

/** What was refused can hold any text, and one entry that cannot be written must not keep the others from it. */
function jsonOf(detail: object): string {
  return JSON.stringify(detail, (_key, value: unknown) => (typeof value === 'string' ? storable(value) : value))
}

/** Entries before `beforeId` (all, where undefined), newest first; of one actor or kind where named. */
export async function listAudit(
  db: Queryable,
  of: { readonly actor?: string; readonly kind?: string },
  beforeId: number | undefined,
  limit: number,
): Promise<readonly AuditRow[]> {
  return await db.query<AuditRow>(
    `select id, at, kind, outcome, actor, client, request_id, detail from audit
      where ($1::bigint is null or id < $1) and ($2::text is null or actor = $2) and ($3::text is null or kind = $3)
      order by id desc limit $4`,
    [beforeId ?? null, of.actor ?? null, of.kind ?? null, limit],
  )
}

/** Removes up to `limit` entries older than `ageMs`; answers how many. */
export async function pruneAudit(tx: Transaction, ageMs: number, limit: number): Promise<number> {
  const rows = await tx.query(
    `delete from audit where id in (
       select id from audit where at < clock_timestamp() - $1 * interval '1 millisecond'
        order by at limit $2 for update skip locked)
     returning id`,
    [ageMs, limit],
  )
  return rows.length
}
