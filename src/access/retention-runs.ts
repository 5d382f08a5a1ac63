import type { Queryable } from '../metadata/database.ts'
import { listTagPulls } from '../metadata/pulls.ts'
import { repositoryIds } from '../metadata/repositories.ts'
import { type ItemKey, type ItemRow, listItems, listRunRepositories } from '../metadata/retention-items.ts'
import { findPolicy, holdPolicy } from '../metadata/retention-policies.ts'
import * as rows from '../metadata/retention-runs.ts'
import { RegistryError } from '../oci/errors.ts'
import { parseName } from '../oci/name.ts'
import { type Actor, type AdministrationContext, administeredBy, record, requireAdmin } from './actor.ts'
import { found } from './names.ts'
import { type Page, type PageRequest, idOf, pageOf } from './page.ts'

/** A run of a policy as administrators see it. */
export interface RetentionRun extends Pick<
  rows.RunTotals,
  'repositories' | 'tags' | 'untagged' | 'removed' | 'spared' | 'held'
> {
  readonly id: number
  readonly policy: string
  readonly goal: 'plan' | 'run'
  readonly state: rows.RunRow['state']
  readonly askedBy: string
  readonly createdAt: Date
  readonly finishedAt: Date | null
  /** Tags that go by the plan. */
  readonly going: number
  readonly error: string | null
}

/**
 * Asks for a plan of a policy, or for a run; `confirmed`: also where it would remove more than the policy's share. It is
 * worked off in the background. Answers its id. @throws RegistryError DENIED, NOT_FOUND.
 */
export async function startRetention(
  context: AdministrationContext,
  actor: Actor,
  ask: { readonly policy: string; readonly goal: 'plan' | 'run'; readonly confirmed: boolean },
): Promise<{ readonly id: number }> {
  const { db } = context
  const isWithin = await administeredBy(db, actor)
  const run = await db.transaction(async tx => {
    const row = await findPolicy(tx, ask.policy)
    const what = `retention policy ${ask.policy}`
    const policy = found(row !== undefined && isWithin([row.pattern]) ? row : undefined, what)
    found(await holdPolicy(tx, policy.id, policy.revision), what)
    const { goal, confirmed: isConfirmed } = ask
    const id = await rows.insertRun(tx, policy, { goal, isConfirmed, askedBy: actor.identity.name })
    await record(tx, actor, 'retention.run', { ...ask, run: id })
    return { id }
  })
  context.onWorkRequested('retain')
  return run
}

/**
 * Lets a run that asks go on: what its plan says goes, and still would, is removed.
 * @throws RegistryError DENIED, NOT_FOUND; CONFLICT where it asks nothing, or its policy has changed since the plan.
 */
export async function confirmRetention(context: AdministrationContext, actor: Actor, runId: string): Promise<void> {
  const { db } = context
  const run = await requireRun(db, actor, runId)
  await db.transaction(async tx => {
    const { id, policy_id: policyId, policy_revision: revision } = run
    if (policyId === null || (await holdPolicy(tx, policyId, revision)) === undefined) {
      throw new RegistryError('CONFLICT', {
        message: `policy ${run.policy} was changed since this plan: make a new one`,
      })
    }
    if (!(await rows.confirmRun(tx, id))) {
      throw new RegistryError('CONFLICT', { message: `run ${id} asks nothing: there is nothing to confirm` })
    }
    await record(tx, actor, 'retention.confirm', { policy: run.policy, run: id })
  })
  context.onWorkRequested('retain')
}

/** Runs, newest first: those of policies that the actor may change. @throws RegistryError DENIED. */
export async function listRetentionRuns(
  { db }: AdministrationContext,
  actor: Actor,
  policy: string | undefined,
  { last, limit }: PageRequest,
): Promise<Page<RetentionRun>> {
  const isWithin = await administeredBy(db, actor)
  const runs = await rows.listRuns(db, policy, idOf(last), limit + 1)
  return pageOf(runs, limit, { key: ({ id }) => String(id), present, keep: ({ pattern }) => isWithin([pattern]) })
}

/** One run. @throws RegistryError DENIED, NOT_FOUND. */
export async function getRetentionRun({ db }: AdministrationContext, actor: Actor, id: string): Promise<RetentionRun> {
  return present(await requireRun(db, actor, id))
}

/** What a run found in one repository, and did. */
export interface RetentionRunRepository {
  readonly repository: string
  readonly tags: number
  readonly going: number
  readonly untagged: number
  readonly removed: number
  readonly spared: number
  readonly held: boolean
}

/** Repositories that a run looked at. @throws RegistryError DENIED, NOT_FOUND. */
export async function listRetentionRepositories(
  { db }: AdministrationContext,
  actor: Actor,
  runId: string,
  { last, limit }: PageRequest,
): Promise<Page<RetentionRunRepository>> {
  const { id } = await requireRun(db, actor, runId)
  return pageOf(await listRunRepositories(db, id, idOf(last) ?? 0, limit + 1), limit, {
    key: row => String(row.repository_id),
    present: ({ name: repository, is_held: held, tags, going, untagged, removed, spared }) => {
      return { repository, tags, going, untagged, removed, spared, held }
    },
  })
}

/** A tag, or a manifest without one by its digest, in a run. */
export interface RetentionItem extends Pick<ItemRow, 'name' | 'digest' | 'goes' | 'rule' | 'reason' | 'outcome'> {
  readonly repository: string
}

/** What becomes of each tag; without `all`, only of those that are to go. @throws RegistryError DENIED, NOT_FOUND. */
export async function listRetentionItems(
  { db }: AdministrationContext,
  actor: Actor,
  of: { readonly run: string; readonly all: boolean },
  { last, limit }: PageRequest,
): Promise<Page<RetentionItem>> {
  const { id } = await requireRun(db, actor, of.run)
  const items = await listItems(db, id, { onlyGoing: !of.all }, itemKeyOf(last), limit + 1)
  return pageOf(items, limit, {
    key: item => `${item.repository_id} ${item.name}`,
    present: ({ repository, name, digest, goes, rule, reason, outcome }) => {
      return { repository, name, digest, goes, rule, reason, outcome }
    },
  })
}

function itemKeyOf(last: string): ItemKey {
  const [repositoryId = '', name = ''] = last.split(' ')
  return { repositoryId: idOf(repositoryId) ?? 0, name }
}

/** When a tag was pulled. */
export interface TagPulls {
  readonly tag: string
  readonly pulls: number
  readonly lastPulledAt: Date | null
}

/** How often the tags of a repository were pulled, and when last; by tag. @throws RegistryError DENIED, NAME_INVALID, NOT_FOUND. */
export async function listPulls(
  { db }: AdministrationContext,
  actor: Actor,
  repository: string,
  { last, limit }: PageRequest,
): Promise<Page<TagPulls>> {
  const name = parseName(repository)
  await requireAdmin(db, actor, [name])
  const id = found((await repositoryIds(db, [name])).get(name), `repository ${name}`)
  return pageOf(await listTagPulls(db, id, last, limit + 1), limit, {
    key: row => row.name,
    present: ({ name: tag, pulls, last_pulled_at: lastPulledAt }) => ({ tag, pulls, lastPulledAt }),
  })
}

async function requireRun(db: Queryable, actor: Actor, runId: string): Promise<rows.RunWithTotals> {
  const isWithin = await administeredBy(db, actor)
  const id = idOf(runId)
  const run = id === undefined ? undefined : await rows.findRun(db, id)
  return found(run !== undefined && isWithin([run.pattern]) ? run : undefined, `retention run ${runId}`)
}

function present(row: rows.RunWithTotals): RetentionRun {
  const { id, policy, goal, state, repositories, tags, going, untagged, removed, spared, held, error } = row
  const { asked_by: askedBy, created_at: createdAt, finished_at: finishedAt } = row
  const totals = { repositories, tags, going, untagged, removed, spared, held }
  return { id, policy, goal, state, askedBy, createdAt, finishedAt, ...totals, error }
}
