import type { Queryable, Transaction } from './database.ts'

/** A user, robot or CI identity. */
export interface PrincipalRow {
  readonly id: number
  readonly kind: 'user' | 'robot' | 'ci'
  readonly name: string
  readonly password_hash: string | null
  /** Who vouches for it, and as whom, where that is not this registry. */
  readonly external_issuer: string | null
  readonly external_subject: string | null
  /** A hash of what it proves itself by there; null: nobody vouches for it any more. */
  readonly external_proof: string | null
  readonly epoch: number
  /** Neither disabled nor expired, by the database's clock, and vouched for by whoever has to. */
  readonly active: boolean
  readonly disabled_at: Date | null
  readonly expires_at: Date | null
  readonly last_used_at: Date | null
  readonly created_at: Date
  readonly created_by: string | null
}

const COLUMNS = `p.id, p.kind, p.name, p.password_hash, p.external_issuer, p.external_subject, p.external_proof, p.epoch,
  p.disabled_at, p.expires_at, p.last_used_at, p.created_at, p.created_by,
  p.disabled_at is null and coalesce(p.expires_at > clock_timestamp(), true)
    and (p.external_issuer is null or p.external_proof is not null) as active`

/** The principal of that name. */
export async function findPrincipal(db: Queryable, name: string): Promise<PrincipalRow | undefined> {
  const rows = await db.query<PrincipalRow>(`select ${COLUMNS} from principal p where p.name = $1`, [name])
  return rows[0]
}

/** The principals of these ids; those that are gone are left out. */
export async function findPrincipals(db: Queryable, ids: readonly number[]): Promise<readonly PrincipalRow[]> {
  return await db.query<PrincipalRow>(`select ${COLUMNS} from principal p where p.id = any($1::bigint[])`, [ids])
}

/** Principals of one kind by name, after `last`. */
export async function listPrincipals(
  db: Queryable,
  kind: PrincipalRow['kind'],
  last: string,
  limit: number,
): Promise<readonly PrincipalRow[]> {
  return await db.query<PrincipalRow>(
    `select ${COLUMNS} from principal p where p.kind = $1 and p.name > $2 order by p.name limit $3`,
    [kind, last, limit],
  )
}

/** What {@link insertPrincipal} writes. */
export interface NewPrincipal {
  readonly kind: PrincipalRow['kind']
  readonly name: string
  readonly passwordHash?: string
  readonly expiresAt?: Date
  readonly externalIssuer?: string
  readonly externalSubject?: string
  readonly createdBy: string
}

/** Adds a principal; answers its id, or undefined where the name is taken. */
export async function insertPrincipal(tx: Transaction, principal: NewPrincipal): Promise<number | undefined> {
  const rows = await tx.query<{ id: number }>(
    `insert into principal (kind, name, password_hash, expires_at, external_issuer, external_subject, created_by)
     values ($1, $2, $3, $4, $5, $6, $7) on conflict (name) do nothing returning id`,
    [
      principal.kind,
      principal.name,
      principal.passwordHash ?? null,
      principal.expiresAt ?? null,
      principal.externalIssuer ?? null,
      principal.externalSubject ?? null,
      principal.createdBy,
    ],
  )
  return rows[0]?.id
}

/**
 * Sets a user's password hash and ends every token issued before; with `epoch` only where the principal is still of it and
 * not disabled. False when nothing was changed.
 */
export async function setPasswordHash(tx: Transaction, id: number, hash: string, epoch?: number): Promise<boolean> {
  const rows = await tx.query(
    `update principal set password_hash = $2, epoch = epoch + 1
      where id = $1 and ($3::bigint is null or (epoch = $3 and disabled_at is null)) returning id`,
    [id, hash, epoch ?? null],
  )
  return rows.length === 1
}

/** Disables or enables a principal; disabling ends every token issued before. False when there is no such principal. */
export async function setDisabled(tx: Transaction, id: number, disabled: boolean): Promise<boolean> {
  const rows = await tx.query(
    `update principal set disabled_at = case when $2 then coalesce(disabled_at, clock_timestamp()) end,
            epoch = epoch + case when $2 then 1 else 0 end
      where id = $1 returning id`,
    [id, disabled],
  )
  return rows.length === 1
}

/** Sets or removes the time at which a principal ends. False when there is no such principal. */
export async function setExpiry(tx: Transaction, id: number, expiresAt: Date | undefined): Promise<boolean> {
  const rows = await tx.query('update principal set expires_at = $2 where id = $1 returning id', [
    id,
    expiresAt ?? null,
  ])
  return rows.length === 1
}

/** Removes a principal with its tokens, grants and memberships. False when there is none. */
export async function deletePrincipal(tx: Transaction, id: number): Promise<boolean> {
  const rows = await tx.query('delete from principal where id = $1 returning id', [id])
  return rows.length === 1
}

/** Writes when principals and their tokens were last used; times only move forward. */
export async function touchPrincipals(
  tx: Transaction,
  used: readonly { readonly principalId: number; readonly tokenId: number | undefined; readonly at: Date }[],
): Promise<void> {
  const values = [used.map(use => use.principalId), used.map(use => use.tokenId ?? null), used.map(use => use.at)]
  await tx.query(
    `with used as (select * from unnest($1::bigint[], $2::bigint[], $3::timestamptz[]) as u (principal_id, token_id, at)),
     tokens as (update access_token t set last_used_at = greatest(t.last_used_at, u.at)
                  from (select token_id, max(at) as at from used where token_id is not null group by 1) u
                 where t.id = u.token_id)
     update principal p set last_used_at = greatest(p.last_used_at, u.at)
       from (select principal_id, max(at) as at from used group by 1) u where p.id = u.principal_id`,
    values,
  )
}
