import type { Queryable, Transaction } from './database.ts'

/** What the index knows of the marker in a store: it has the stamp, or the next one while that is being written. */
export interface StoreClaim {
  readonly stamp: string | null
  readonly next_stamp: string | null
  /** Whether whoever began to write the next stamp must have ended. */
  readonly is_stamping_over: boolean
  /** Whether a copy of this database has had the time to object. */
  readonly settled: boolean
}

/** Which database this is: its id, made once, which a copy of it has as well. */
export async function databaseId(db: Queryable): Promise<string> {
  const rows = await db.query<{ id: string }>('select id from database_identity')
  if (rows[0] === undefined) throw new TypeError('the index has no identity')
  return rows[0].id
}

/** Gives the database another id, which no copy has. */
export async function renewDatabaseId(tx: Transaction): Promise<string> {
  const rows = await tx.query<{ id: string }>('update database_identity set id = gen_random_uuid() returning id')
  if (rows[0] === undefined) throw new TypeError('the index has no identity')
  return rows[0].id
}

/**
 * What tells a Postgres database from one that was restored from its dump: the cluster and the number of the database in
 * it. A copy of the cluster's files has both.
 */
export async function postgresIncarnation(db: Queryable): Promise<string> {
  const [row] = await db.query<{ oid: string; allowed: boolean }>(
    `select oid::text, has_function_privilege('pg_control_system()', 'execute') as allowed
       from pg_database where datname = current_database()`,
  )
  if (row?.allowed !== true) return `postgres ${row?.oid ?? ''}`
  const [cluster] = await db.query<{ id: string }>('select system_identifier::text as id from pg_control_system()')
  return `postgres ${cluster?.id ?? ''} ${row.oid}`
}

/** The claim on a store; undefined where this database never had one. */
export async function findClaim(db: Queryable, store: string): Promise<StoreClaim | undefined> {
  const rows = await db.query<StoreClaim>(
    `select stamp, next_stamp, coalesce(stamping_until < clock_timestamp(), true) as is_stamping_over,
            settled_at <= clock_timestamp() as settled
       from store_claim where store = $1`,
    [store],
  )
  return rows[0]
}

/**
 * Takes the right to write the next stamp, where the marker says `found` (nothing: null) and nobody else is at it.
 * Answers the stamp to write, undefined where it is not ours to do.
 */
export async function beginStamp(
  tx: Transaction,
  store: string,
  found: string | null,
  limitMs: number,
): Promise<string | undefined> {
  await tx.query('insert into store_claim (store) values ($1) on conflict do nothing', [store])
  const rows = await tx.query<{ next_stamp: string }>(
    `update store_claim
        set stamp = $2, next_stamp = gen_random_uuid(),
            stamping_until = clock_timestamp() + $3 * interval '1 millisecond', settled_at = 'infinity'
      where store = $1 and (stamp = $2 or next_stamp = $2 or ($2::uuid is null and stamp is null))
        and (stamping_until is null or stamping_until < clock_timestamp())
     returning next_stamp`,
    [store, found, limitMs],
  )
  return rows[0]?.next_stamp
}

/** Records that the marker has a stamp; bytes may be deleted after `settleMs`. */
export async function endStamp(tx: Transaction, store: string, stamp: string, settleMs: number): Promise<void> {
  await tx.query(
    `update store_claim
        set stamp = next_stamp, next_stamp = null, stamping_until = null,
            settled_at = clock_timestamp() + $3 * interval '1 millisecond'
      where store = $1 and next_stamp = $2`,
    [store, stamp, settleMs],
  )
}

/** Records that this database wrote the marker with a stamp, whatever was there. */
export async function recordStamp(tx: Transaction, store: string, stamp: string): Promise<void> {
  await tx.query(
    `insert into store_claim (store, stamp, settled_at) values ($1, $2, clock_timestamp())
     on conflict (store) do update
        set stamp = excluded.stamp, next_stamp = null, stamping_until = null, settled_at = excluded.settled_at`,
    [store, stamp],
  )
}

/** Whether a blob's row says that its bytes lie in a store. */
export async function isStoreInUse(db: Queryable, store: string): Promise<boolean> {
  return (await db.query('select id from blob where store = $1 limit 1', [store])).length > 0
}
