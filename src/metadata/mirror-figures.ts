import type { Queryable, Transaction } from './database.ts'
import { BELOW, below } from './mirrors.ts'

/** What one process counted of a mirror since it last wrote that. */
export interface MirrorFigures {
  readonly prefix: string
  /** Amounts by name. */
  readonly counts: Readonly<Record<string, number>>
  readonly failures: readonly MirrorFailure[]
  readonly rate: MirrorRate | undefined
}

/** A failure of an upstream. */
export interface MirrorFailure {
  readonly at: Date
  readonly kind: string
  readonly message: string
}

/** What an upstream said about our quota there. */
export interface MirrorRate {
  readonly limit: number | null
  readonly remaining: number | null
  readonly at: Date
}

const KEPT_FAILURES = 20

/** Adds up what was counted. Counters are taken in one order in every process, so that none waits in a circle. */
export async function addMirrorFigures(tx: Transaction, figures: readonly MirrorFigures[]): Promise<void> {
  const sorted = figures.toSorted((a, b) => (a.prefix < b.prefix ? -1 : 1))
  await tx.query(
    `insert into mirror_state (prefix) select p from unnest($1::text[]) as p order by p on conflict (prefix) do nothing`,
    [sorted.map(({ prefix }) => prefix)],
  )
  const counts = sorted.flatMap(({ prefix, counts: all }) =>
    Object.entries(all).map(([name, amount]) => ({ prefix, name, amount })),
  )
  await tx.query(
    `insert into mirror_count as c (prefix, name, amount)
     select prefix, name, amount from unnest($1::text[], $2::text[], $3::bigint[]) as n (prefix, name, amount)
      order by prefix, name
     on conflict (prefix, name) do update set amount = c.amount + excluded.amount`,
    [counts.map(({ prefix }) => prefix), counts.map(({ name }) => name), counts.map(({ amount }) => amount)],
  )
  for (const { prefix, failures, rate } of sorted) {
    if (rate !== undefined) await noteRate(tx, prefix, rate)
    if (failures.length > 0) await noteFailures(tx, prefix, failures)
  }
}

async function noteRate(tx: Transaction, prefix: string, { limit, remaining, at }: MirrorRate): Promise<void> {
  await tx.query(
    `update mirror_state set rate_limit = $2, rate_remaining = $3, rate_at = $4
      where prefix = $1 and coalesce(rate_at < $4, true)`,
    [prefix, limit, remaining, at],
  )
}

async function noteFailures(tx: Transaction, prefix: string, failures: readonly MirrorFailure[]): Promise<void> {
  await tx.query(
    `insert into mirror_failure (prefix, at, kind, message)
     select $1, at, kind, message from unnest($2::timestamptz[], $3::text[], $4::text[]) as f (at, kind, message)
      order by at`,
    [prefix, failures.map(({ at }) => at), failures.map(({ kind }) => kind), failures.map(({ message }) => message)],
  )
  await tx.query(
    `delete from mirror_failure where prefix = $1 and id <=
       (select id from mirror_failure where prefix = $1 order by id desc offset $2 limit 1)`,
    [prefix, KEPT_FAILURES],
  )
}

/** What all processes together counted of a mirror, as far as they wrote it. */
export interface MirrorTotals {
  readonly counts: Readonly<Record<string, number>>
  readonly since: Date | null
  readonly rate_limit: number | null
  readonly rate_remaining: number | null
  readonly rate_at: Date | null
  /** As last measured, each blob once; null where it was not. */
  readonly bytes: number | null
  readonly measured_at: Date | null
  readonly repositories: number
  readonly manifests: number
  /** Now, each blob once a repository. */
  readonly logical_bytes: number
}

/** The same of each of these prefixes. */
export async function mirrorTotals(
  db: Queryable,
  prefixes: readonly string[],
): Promise<ReadonlyMap<string, MirrorTotals>> {
  const states = await db.query<
    Omit<MirrorTotals, 'counts' | 'repositories' | 'manifests' | 'logical_bytes'> & { prefix: string }
  >(
    `select prefix, since, rate_limit, rate_remaining, rate_at, bytes, measured_at
       from mirror_state where prefix = any($1::text[])`,
    [prefixes],
  )
  const counts = await db.query<{ prefix: string; name: string; amount: number }>(
    'select prefix, name, amount from mirror_count where prefix = any($1::text[])',
    [prefixes],
  )
  const found = new Map<string, MirrorTotals>()
  for (const prefix of prefixes) {
    const { prefix: _prefix, ...state } = states.find(row => row.prefix === prefix) ?? { ...NOTHING, prefix }
    const own = counts.filter(row => row.prefix === prefix).map(({ name, amount }) => [name, amount] as const)
    found.set(prefix, { ...state, counts: Object.fromEntries(own), ...(await mirrorUsage(db, prefix)) })
  }
  return found
}

const NOTHING = { since: null, rate_limit: null, rate_remaining: null, rate_at: null, bytes: null, measured_at: null }

/** What the repositories below a prefix use, each blob once a repository: a counter for each, and no content, is read. */
export async function mirrorUsage(
  db: Queryable,
  prefix: string,
): Promise<Pick<MirrorTotals, 'repositories' | 'manifests' | 'logical_bytes'>> {
  const [row] = await db.query<{ repositories: number; manifests: number; logical_bytes: number }>(
    `with named as (select id from repository where ${BELOW} and deleted_at is null)
     select (select count(*) from named) as repositories, coalesce(sum(x.manifests), 0)::bigint as manifests,
            coalesce(sum(x.bytes), 0)::bigint as logical_bytes
       from (select u.manifests, u.bytes from repository_usage u join named n on n.id = u.repository_id
             union all
             select d.manifests, d.blob_bytes + d.manifest_bytes
               from usage_delta d join named n on n.id = d.repository_id) x`,
    below(prefix),
  )
  return row ?? { repositories: 0, manifests: 0, logical_bytes: 0 }
}

/** The last failures of a mirror's upstream, the newest first. */
export async function lastFailures(db: Queryable, prefix: string): Promise<readonly MirrorFailure[]> {
  return await db.query<{ at: Date; kind: string; message: string }>(
    'select at, kind, message from mirror_failure where prefix = $1 order by id desc',
    [prefix],
  )
}
