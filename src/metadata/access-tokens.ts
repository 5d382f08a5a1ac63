import type { Queryable, Transaction } from './database.ts'

/** A personal access token or the token of a robot, without its secrets. */
export interface AccessTokenRow {
  readonly id: number
  readonly principal_id: number
  readonly name: string
  /** Patterns with actions that narrow what the principal may; null narrows nothing. */
  readonly scopes: unknown
  readonly expires_at: Date | null
  readonly last_used_at: Date | null
  readonly created_at: Date
  /** When each live secret was made, oldest first. */
  readonly secrets: readonly { readonly id: number; readonly created_at: string; readonly expires_at: string | null }[]
}

const SELECT = `select t.id, t.principal_id, t.name, t.scopes, t.expires_at, t.last_used_at, t.created_at,
       coalesce((select jsonb_agg(jsonb_build_object('id', s.id, 'created_at', s.created_at, 'expires_at', s.expires_at)
                                  order by s.id)
                   from token_secret s
                  where s.token_id = t.id and coalesce(s.expires_at > clock_timestamp(), true)), '[]') as secrets
  from access_token t`

/** What a secret proves. */
export interface SecretRow {
  readonly id: number
  readonly token_id: number
  readonly scopes: unknown
  /** Neither the secret nor its token is past its end, by the database's clock. */
  readonly active: boolean
  /** When it ends, or its token does. */
  readonly ends_at: Date | null
  readonly principal_id: number
}

/** Whether a secret still proves something. */
export type SecretState = Pick<SecretRow, 'id' | 'active'>

const ACTIVE = `coalesce(s.expires_at > clock_timestamp(), true) and coalesce(t.expires_at > clock_timestamp(), true) as active`

/** The token that a secret (by its hash) belongs to, also where it has expired. */
export async function findSecret(db: Queryable, hash: Uint8Array): Promise<SecretRow | undefined> {
  const rows = await db.query<SecretRow>(
    `select s.id, t.id as token_id, t.scopes, t.principal_id, least(s.expires_at, t.expires_at) as ends_at, ${ACTIVE}
       from token_secret s join access_token t on t.id = s.token_id where s.hash = $1`,
    [hash],
  )
  return rows[0]
}

/** The secrets of these ids; those that are gone are left out. */
export async function findSecretStates(db: Queryable, ids: readonly number[]): Promise<readonly SecretState[]> {
  return await db.query<SecretState>(
    `select s.id, ${ACTIVE} from token_secret s join access_token t on t.id = s.token_id where s.id = any($1::bigint[])`,
    [ids],
  )
}

/** A principal's tokens by name, after `last`. */
export async function listAccessTokens(
  db: Queryable,
  principalId: number,
  last: string,
  limit: number,
): Promise<readonly AccessTokenRow[]> {
  return await db.query<AccessTokenRow>(
    `${SELECT} where t.principal_id = $1 and t.name > $2 order by t.name limit $3`,
    [principalId, last, limit],
  )
}

/** A principal's token of that name. */
export async function findAccessToken(
  db: Queryable,
  principalId: number,
  name: string,
): Promise<AccessTokenRow | undefined> {
  return (await db.query<AccessTokenRow>(`${SELECT} where t.principal_id = $1 and t.name = $2`, [principalId, name]))[0]
}

/** Adds a token; answers its id, or undefined where the principal has one of that name. */
export async function insertAccessToken(
  tx: Transaction,
  token: {
    readonly principalId: number
    readonly name: string
    readonly scopes: readonly object[] | undefined
    readonly expiresAt: Date | undefined
  },
): Promise<number | undefined> {
  const rows = await tx.query<{ id: number }>(
    `insert into access_token (principal_id, name, scopes, expires_at) values ($1, $2, $3, $4)
     on conflict (principal_id, name) do nothing returning id`,
    [
      token.principalId,
      token.name,
      token.scopes === undefined ? null : JSON.stringify(token.scopes),
      token.expiresAt ?? null,
    ],
  )
  return rows[0]?.id
}

/** Locks a token against another change of its secrets. False when there is none. */
export async function lockAccessToken(tx: Transaction, id: number): Promise<boolean> {
  return (await tx.query('select id from access_token where id = $1 for update', [id])).length === 1
}

/** Adds a secret to a token that the caller has locked. */
export async function insertSecret(tx: Transaction, tokenId: number, hash: Uint8Array): Promise<void> {
  await tx.query('insert into token_secret (token_id, hash) values ($1, $2)', [tokenId, hash])
}

/** Leaves the newest `keep` secrets of a locked token, which end in `inMs` from now, and removes the rest. */
export async function retireSecrets(tx: Transaction, tokenId: number, keep: number, inMs: number): Promise<void> {
  await tx.query(
    `delete from token_secret where token_id = $1 and id not in
       (select id from token_secret where token_id = $1 order by id desc limit $2)`,
    [tokenId, keep],
  )
  await tx.query(
    `update token_secret set expires_at = least(expires_at, clock_timestamp() + $2 * interval '1 millisecond')
      where token_id = $1`,
    [tokenId, inMs],
  )
}

/** Removes a token with its secrets. False when there is none. */
export async function deleteAccessToken(tx: Transaction, id: number): Promise<boolean> {
  return (await tx.query('delete from access_token where id = $1 returning id', [id])).length === 1
}
