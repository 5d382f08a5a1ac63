import type { Queryable, Transaction } from './database.ts'

/** What a refresh token proves while it lives. */
export interface RefreshTokenRow {
  readonly principal_id: number
  readonly epoch: number
  readonly scopes: unknown
  readonly provenance: Readonly<Record<string, string>> | null
  readonly expires_at: Date
}

/** The living refresh token of that hash. */
export async function findRefreshToken(db: Queryable, hash: Uint8Array): Promise<RefreshTokenRow | undefined> {
  const rows = await db.query<RefreshTokenRow>(
    `select principal_id, epoch, scopes, provenance, expires_at from refresh_token
      where hash = $1 and expires_at > clock_timestamp()`,
    [hash],
  )
  return rows[0]
}

/** Adds a refresh token that lives for `lifetimeMs`. */
export async function insertRefreshToken(
  tx: Transaction,
  token: {
    readonly hash: Uint8Array
    readonly principalId: number
    readonly epoch: number
    readonly scopes: readonly object[] | undefined
    readonly provenance: Readonly<Record<string, string>> | undefined
    readonly lifetimeMs: number
  },
): Promise<void> {
  await tx.query(
    `insert into refresh_token (hash, principal_id, epoch, scopes, provenance, expires_at)
     values ($1, $2, $3, $4, $5, clock_timestamp() + $6 * interval '1 millisecond')`,
    [
      token.hash,
      token.principalId,
      token.epoch,
      token.scopes === undefined ? null : JSON.stringify(token.scopes),
      token.provenance === undefined ? null : JSON.stringify(token.provenance),
      token.lifetimeMs,
    ],
  )
}

/** Removes up to `limit` expired refresh tokens and used token ids; answers how many. */
export async function pruneExpiredTokens(tx: Transaction, limit: number): Promise<number> {
  const rows = await tx.query(
    `with refresh as (
       delete from refresh_token where hash in (
         select hash from refresh_token where expires_at < clock_timestamp() limit $1 for update skip locked)
       returning 1),
     used as (
       delete from used_jti where (issuer, jti) in (
         select issuer, jti from used_jti where expires_at < clock_timestamp() limit $1 for update skip locked)
       returning 1)
     select from refresh union all select from used`,
    [limit],
  )
  return rows.length
}
