import type { Queryable, Transaction } from './database.ts'

/** Which identity tokens stand for which CI principal. */
export interface TrustRuleRow {
  readonly id: number
  readonly principal_id: number
  readonly name: string
  readonly issuer: string
  readonly audience: string
  /** Claim names with the value each must have. */
  readonly claims: Readonly<Record<string, string | number | boolean>>
  readonly single_use: boolean
  readonly allow_pull_request_target: boolean
  readonly session_seconds: number
  readonly created_at: Date
  readonly created_by: string | null
}

const SELECT = `select id, principal_id, name, issuer, audience, claims, single_use, allow_pull_request_target,
       session_seconds, created_at, created_by from trust_rule`

/** Rules for tokens of one issuer, in the order they were made. */
export async function trustRulesOf(db: Queryable, issuer: string): Promise<readonly TrustRuleRow[]> {
  return await db.query<TrustRuleRow>(`${SELECT} where issuer = $1 order by id`, [issuer])
}

/** Rules by name, after `last`. */
export async function listTrustRules(db: Queryable, last: string, limit: number): Promise<readonly TrustRuleRow[]> {
  return await db.query<TrustRuleRow>(`${SELECT} where name > $1 order by name limit $2`, [last, limit])
}

/** The rule of that name. */
export async function findTrustRule(db: Queryable, name: string): Promise<TrustRuleRow | undefined> {
  return (await db.query<TrustRuleRow>(`${SELECT} where name = $1`, [name]))[0]
}

/** Adds a rule; answers its id, or undefined where the name is taken. */
export async function insertTrustRule(
  tx: Transaction,
  rule: Omit<TrustRuleRow, 'id' | 'created_at' | 'created_by'> & { readonly created_by: string },
): Promise<number | undefined> {
  const rows = await tx.query<{ id: number }>(
    `insert into trust_rule (principal_id, name, issuer, audience, claims, single_use, allow_pull_request_target,
                             session_seconds, created_by)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict (name) do nothing returning id`,
    [
      rule.principal_id,
      rule.name,
      rule.issuer,
      rule.audience,
      JSON.stringify(rule.claims),
      rule.single_use,
      rule.allow_pull_request_target,
      rule.session_seconds,
      rule.created_by,
    ],
  )
  return rows[0]?.id
}

/** Takes an identity token's id for its one use. False when it was used before. */
export async function takeJti(tx: Transaction, issuer: string, jti: string, expiresAt: Date): Promise<boolean> {
  const rows = await tx.query(
    'insert into used_jti (issuer, jti, expires_at) values ($1, $2, $3) on conflict do nothing returning jti',
    [issuer, jti, expiresAt],
  )
  return rows.length === 1
}
