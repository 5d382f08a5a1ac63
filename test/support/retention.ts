import type { Database } from '../../src/metadata/database.ts'
import { type NewPolicy, findPolicy, putPolicy } from '../../src/metadata/retention-policies.ts'
import { type ItemRow, listItems } from '../../src/metadata/retention-items.ts'
import { type RunWithTotals, findRun, insertRun } from '../../src/metadata/retention-runs.ts'
import type { Lifetimes } from '../../src/registry/context.ts'
import { retain } from '../../src/retention/retention.ts'
import { parseRule } from '../../src/retention/rules.ts'

const HOUR_MS = 3_600_000

/** As {@link withRegistry} has them, but that untagged content stays for two days. */
export const LIFETIMES: Lifetimes = {
  leaseMs: HOUR_MS,
  untaggedRetentionMs: 48 * HOUR_MS,
  deleteGraceMs: 48 * HOUR_MS,
  uploadExpiryMs: HOUR_MS,
  trashGraceMs: HOUR_MS,
}

/** What {@link makePolicy} makes, beyond a policy about everything that asks nothing. */
export type PolicyParts = Partial<Omit<NewPolicy, 'rules'>> & { readonly rules: readonly string[] }

/** Adds a policy or changes it. */
export async function makePolicy(db: Database, name: string, { rules, ...parts }: PolicyParts): Promise<void> {
  const policy: NewPolicy = {
    name,
    pattern: '**',
    tags: ['*'],
    rules: rules.map(rule => parseRule(rule)),
    untagged: false,
    max_share: 100,
    schedule: null,
    time_zone: 'UTC',
    next_run_at: null,
    created_by: null,
    ...parts,
  }
  await db.transaction(tx => putPolicy(tx, policy))
}

/** Asks for a run of a policy; answers its id. */
export async function ask(db: Database, name: string, goal: 'plan' | 'run' = 'run'): Promise<number> {
  const policy = await findPolicy(db, name)
  if (policy === undefined) throw new Error(`no policy ${name}`)
  return await db.transaction(tx => insertRun(tx, policy, { goal, isConfirmed: false, askedBy: 'test' }))
}

/** Works off whatever waits, as one process does. */
export async function work(db: Database, signal = new AbortController().signal): Promise<void> {
  await retain({ db, lifetimes: LIFETIMES, flushPulls: () => Promise.resolve() }, signal)
}

/** Asks for a run and works it off. */
export async function run(db: Database, name: string, goal: 'plan' | 'run' = 'run'): Promise<RunWithTotals> {
  const id = await ask(db, name, goal)
  await work(db)
  return await runOf(db, id)
}

/** A run with its totals. */
export async function runOf(db: Database, id: number): Promise<RunWithTotals> {
  const found = await findRun(db, id)
  if (found === undefined) throw new Error(`no run ${id}`)
  return found
}

/** The items of a run by their names. */
export async function itemsOf(db: Database, id: number): Promise<Readonly<Record<string, ItemRow>>> {
  const items = await listItems(db, id, { onlyGoing: false }, { repositoryId: 0, name: '' }, 10_000)
  return Object.fromEntries(items.map(item => [item.name, item]))
}

/** The tags of a repository. */
export async function tagsOf(db: Database, repository: string): Promise<readonly string[]> {
  const rows = await db.query<{ name: string }>(
    `select t.name from tag t join repository r on r.id = t.repository_id where r.name = $1 order by t.name`,
    [repository],
  )
  return rows.map(({ name }) => name)
}

/** Makes tags of a repository (all, or one) as old as if they had been pushed days ago. */
export async function age(db: Database, repository: string, days: number, tag?: string): Promise<void> {
  await db.transaction(async tx => {
    await tx.query(
      `update tag set updated_at = clock_timestamp() - $2 * interval '1 day'
        where repository_id = (select id from repository where name = $1) and ($3::text is null or name = $3)`,
      [repository, days, tag ?? null],
    )
  })
}
