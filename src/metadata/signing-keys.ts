import type { Queryable, Transaction } from './database.ts'

/** A key that signs tokens, as JWK. */
export interface SigningKeyRow {
  readonly kid: string
  readonly private_jwk: Readonly<Record<string, unknown>>
  readonly public_jwk: Readonly<Record<string, unknown>>
  readonly signs_from: Date
  readonly retires_at: Date | null
  /** Whether it may sign now, by the database's clock. */
  readonly signing: boolean
}

/** Every key that has not retired, the newest to sign first. */
export async function listSigningKeys(db: Queryable): Promise<readonly SigningKeyRow[]> {
  return await db.query<SigningKeyRow>(
    `select kid, private_jwk, public_jwk, signs_from, retires_at, signs_from <= clock_timestamp() as signing
       from signing_key
      where coalesce(retires_at > clock_timestamp(), true) order by signs_from desc, kid`,
  )
}

/** Makes whoever changes the set of keys wait for each other, from here to the end of the transaction. */
export async function lockSigningKeys(tx: Transaction): Promise<void> {
  await tx.query("select pg_advisory_xact_lock(hashtextextended('signing keys', 0))")
}

/** Adds a key that signs from `signsInMs` from now on. */
export async function insertSigningKey(
  tx: Transaction,
  key: { readonly kid: string; readonly privateJwk: object; readonly publicJwk: object; readonly signsInMs: number },
): Promise<void> {
  await tx.query(
    `insert into signing_key (kid, private_jwk, public_jwk, signs_from)
     values ($1, $2, $3, clock_timestamp() + $4 * interval '1 millisecond')`,
    [key.kid, JSON.stringify(key.privateJwk), JSON.stringify(key.publicJwk), key.signsInMs],
  )
}

/** Lets a key sign from now on. */
export async function startSigningKey(tx: Transaction, kid: string): Promise<void> {
  await tx.query('update signing_key set signs_from = clock_timestamp() where kid = $1', [kid])
}

/** Ends a key in `inMs` from now; what it signed until now has expired by then. */
export async function retireSigningKey(tx: Transaction, kid: string, inMs: number): Promise<void> {
  await tx.query(
    `update signing_key set retires_at = least(retires_at, clock_timestamp() + $2 * interval '1 millisecond')
      where kid = $1`,
    [kid, inMs],
  )
}

/** Removes keys that have retired; answers how many. */
export async function deleteRetiredKeys(tx: Transaction): Promise<number> {
  return (await tx.query('delete from signing_key where retires_at < clock_timestamp() returning kid')).length
}
