import type { Digest } from '../oci/digest.ts'
import type { Transaction } from './database.ts'

/** Bytes that no row names any more. */
export interface TrashRow {
  readonly store: string
  readonly storage_key: string
  /** Set for content that was never finished. */
  readonly state: unknown
  /** In bytes, where it is known. */
  readonly size: number | null
}

/** Hands bytes that nothing names to the purge, which may take them after `graceMs`. */
export async function trashBytes(
  tx: Transaction,
  bytes: {
    readonly store: string
    readonly key: string
    readonly digest: Digest
    readonly size: number
    readonly graceMs: number
  },
): Promise<void> {
  await tx.query(
    `insert into trash (store, storage_key, digest, size, purge_after)
     values ($1, $2, $3, $4, clock_timestamp() + $5 * interval '1 millisecond')
     on conflict (store, storage_key) do nothing`,
    [bytes.store, bytes.key, bytes.digest, bytes.size, bytes.graceMs],
  )
}

/**
 * Marks up to `limit` due rows as being purged, which ends every way back for them. Rows whose purge began more than ten
 * minutes ago are taken again: whoever began it died.
 */
export async function beginPurge(tx: Transaction, store: string, limit: number): Promise<readonly TrashRow[]> {
  return await tx.query<TrashRow>(
    `with due as (
       select store, storage_key from trash
        where store = $1 and purge_after < statement_timestamp()
          and (purging_at is null or purging_at < clock_timestamp() - interval '10 minutes')
        order by purge_after limit $2 for update skip locked)
     update trash t set purging_at = clock_timestamp() from due
      where t.store = due.store and t.storage_key = due.storage_key
      returning t.store, t.storage_key, t.state, t.size`,
    [store, limit],
  )
}

/** Forgets rows whose bytes are gone. */
export async function endPurge(tx: Transaction, store: string, keys: readonly string[]): Promise<void> {
  await tx.query('delete from trash where store = $1 and storage_key = any($2::text[]) and purging_at is not null', [
    store,
    keys,
  ])
}
