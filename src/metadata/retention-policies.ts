import type { Queryable, Transaction } from './database.ts'

/** Which tags of which repositories stay. */
export interface PolicyRow {
  readonly id: number
  readonly name: string
  readonly revision: number
  /** Of repositories. */
  readonly pattern: string
  /** Patterns of the tags that it is about. */
  readonly tags: readonly string[]
  /** As they were given: the metadata knows nothing of their form. */
  readonly rules: readonly unknown[]
  readonly untagged: boolean
  /** In per cent. */
  readonly max_share: number
  readonly schedule: string | null
  readonly time_zone: string
  readonly next_run_at: Date | null
  readonly created_at: Date
  readonly created_by: string | null
}

const SELECT = `select id, name, revision, pattern, tags, rules, untagged, max_share, schedule, time_zone, next_run_at,
       created_at, created_by from retention_policy`

/** The policy of that name. */
export async function findPolicy(db: Queryable, name: string): Promise<PolicyRow | undefined> {
  return (await db.query<PolicyRow>(`${SELECT} where name = $1`, [name]))[0]
}

/** The policy of that id at that revision, held against changes to the end of the transaction. */
export async function holdPolicy(tx: Transaction, id: number, revision: number): Promise<PolicyRow | undefined> {
  return (await tx.query<PolicyRow>(`${SELECT} where id = $1 and revision = $2 for share`, [id, revision]))[0]
}

/** Policies by name, after `last`. */
export async function listPolicies(db: Queryable, last: string, limit: number): Promise<readonly PolicyRow[]> {
  return await db.query<PolicyRow>(`${SELECT} where name > $1 order by name limit $2`, [last, limit])
}

/** What {@link putPolicy} writes. */
export type NewPolicy = Omit<PolicyRow, 'id' | 'revision' | 'created_at'>

/** Adds a policy, or puts it in the place of the one of its name. */
export async function putPolicy(tx: Transaction, policy: NewPolicy): Promise<void> {
  await tx.query(
    `insert into retention_policy as p (name, pattern, tags, rules, untagged, max_share, schedule, time_zone,
                                        next_run_at, created_by)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
     on conflict (name) do update
        set revision = p.revision + 1, pattern = excluded.pattern, tags = excluded.tags, rules = excluded.rules,
            untagged = excluded.untagged, max_share = excluded.max_share, schedule = excluded.schedule,
            time_zone = excluded.time_zone, next_run_at = excluded.next_run_at`,
    [
      policy.name,
      policy.pattern,
      policy.tags,
      JSON.stringify(policy.rules),
      policy.untagged,
      policy.max_share,
      policy.schedule,
      policy.time_zone,
      policy.next_run_at,
      policy.created_by,
    ],
  )
}

/** Locks the policy of that name for a change. */
export async function lockPolicy(tx: Transaction, name: string): Promise<PolicyRow | undefined> {
  return (await tx.query<PolicyRow>(`${SELECT} where name = $1 for update`, [name]))[0]
}

/** Removes a policy; its runs stay. False when there is none. */
export async function deletePolicy(tx: Transaction, id: number): Promise<boolean> {
  return (await tx.query('delete from retention_policy where id = $1 returning id', [id])).length === 1
}

/** Locks one policy whose time has come, with the database's clock; one that another process holds is that one's. */
export async function lockDuePolicy(tx: Transaction): Promise<(PolicyRow & { readonly now: Date }) | undefined> {
  const rows = await tx.query<PolicyRow & { now: Date }>(
    `select p.*, clock_timestamp() as now from retention_policy p
      where next_run_at <= clock_timestamp() order by next_run_at limit 1 for update skip locked`,
  )
  return rows[0]
}

/** Sets when a policy runs next. */
export async function setNextRun(tx: Transaction, id: number, at: Date | undefined): Promise<void> {
  await tx.query('update retention_policy set next_run_at = $2 where id = $1', [id, at ?? null])
}
