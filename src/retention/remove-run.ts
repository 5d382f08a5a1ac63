import { RegistryError } from '../oci/errors.ts'
import type { Tag } from '../oci/name.ts'
import type { Transaction } from '../metadata/database.ts'
import { keepLivingRepository } from '../metadata/repositories.ts'
import { shortenLeases } from '../metadata/retention-facts.ts'
import {
  type ItemOutcome,
  type ItemRow,
  type RunRepositoryRow,
  nextItems,
  nextRunRepository,
  setOutcomes,
  setRepositoryDone,
} from '../metadata/retention-items.ts'
import { type TagGuard, openTagGuard } from '../registry/tag-guard.ts'
import { lockTags, removeLockedTag } from '../registry/tags.ts'
import type { TagFacts } from './facts.ts'
import { loadFacts } from './load.ts'
import { type Verdict, planRetention } from './plan.ts'
import type { Policy, RetentionContext, Work } from './work.ts'

/** Tags that one transaction holds still, at least and at most: pushes of these wait for it. */
const BATCH = { least: 100, most: 1_000 }

/** Planning a batch again looks at every tag: of many tags, more are removed at a time. */
function batchOf({ tags }: RunRepositoryRow): number {
  return Math.min(BATCH.most, Math.max(BATCH.least, Math.floor(tags / 100)))
}

/**
 * Removes what a run's plan says goes, repository by repository, but for those that are held. Each batch is planned
 * again in the transaction that removes it, while its tags are held still: what has moved, was pulled or is kept by a
 * rule by now stays. Goes on where another process stopped.
 */
export async function removePlanned({ context, run, signal, transaction }: Work): Promise<void> {
  await context.flushPulls()
  for (;;) {
    const repository = await nextRunRepository(context.db, run.id)
    if (repository === undefined) return
    const batch = batchOf(repository)
    for (let isDone = false; !isDone;) {
      signal.throwIfAborted()
      isDone = await transaction(async (tx, policy) => {
        const items = await nextItems(tx, run.id, repository.repository_id, batch)
        const outcomes = items.length === 0 ? [] : await removeItems(context, tx, policy, repository, items)
        await setOutcomes(tx, run.id, repository.repository_id, outcomes)
        if (items.length === batch) return false
        await setRepositoryDone(tx, run.id, repository.repository_id)
        return true
      })
    }
  }
}

async function removeItems(
  context: RetentionContext,
  tx: Transaction,
  policy: Policy,
  repository: RunRepositoryRow,
  items: readonly ItemRow[],
): Promise<readonly ItemOutcome[]> {
  const { repository_id: repositoryId } = repository
  if (!(await keepLivingRepository(tx, repositoryId)))
    return items.map(item => spare(item, 'the repository was deleted'))
  const guard = await openTagGuard(tx, repository.name, { isRetention: true })
  const tags = items.filter(({ name }) => !isDigest(name))
  const untagged = items.filter(({ name }) => isDigest(name))
  await lockTags(
    tx,
    repositoryId,
    tags.map(({ name }) => name as Tag),
    untagged.map(({ digest }) => digest),
  )
  // Behind the locks: from here on none of the tags can move.
  const facts = await loadFacts(tx, repositoryId, policy.untagged ? context.lifetimes : undefined)
  const plan = await planRetention(policy, facts)
  const known = new Map(facts.tags.map(tag => [tag.name, tag]))
  const verdicts = new Map([...plan.tags, ...plan.untagged].map(verdict => [verdict.name, verdict]))
  const outcomes: ItemOutcome[] = []
  for (const item of tags) {
    const reason = whyNotNow(item, known.get(item.name), verdicts.get(item.name), repository.planned_at)
    outcomes.push(
      reason === undefined ? await removeItem(context, tx, { policy, repository, guard }, item) : spare(item, reason),
    )
  }
  const goes = untagged.filter(({ name }) => verdicts.get(name)?.goes === true)
  const left = await shortenLeases(
    tx,
    repositoryId,
    goes.map(({ digest }) => digest),
    context.lifetimes,
  )
  for (const item of untagged) {
    outcomes.push(left.includes(item.digest) ? remove(item) : spare(item, 'it is in use, or goes by itself'))
  }
  return outcomes
}

/** Why a tag that was to go stays, or undefined where it still goes. */
function whyNotNow(
  item: ItemRow,
  tag: TagFacts | undefined,
  verdict: Verdict | undefined,
  plannedAt: Date,
): string | undefined {
  if (tag === undefined) return 'it had been deleted already'
  if (tag.digest !== item.digest || tag.pushedAt > plannedAt) return 'it was pushed after the plan'
  if (tag.pulledAt !== undefined && tag.pulledAt > plannedAt) return 'it was pulled after the plan'
  return verdict?.goes === true ? undefined : (verdict?.reason ?? 'the policy is not about it any more')
}

async function removeItem(
  context: RetentionContext,
  tx: Transaction,
  { policy, repository, guard }: { policy: Policy; repository: RunRepositoryRow; guard: TagGuard },
  item: ItemRow,
): Promise<ItemOutcome> {
  const { repository_id: repositoryId, name } = repository
  const principal = `retention policy ${policy.name}`
  try {
    await removeLockedTag(context, tx, { repositoryId, repository: name, name: item.name as Tag, principal, guard })
    return remove(item)
  } catch (error) {
    // A rule about tags forbids it.
    if (error instanceof RegistryError) return spare(item, error.message)
    throw error
  }
}

const isDigest = (name: string): boolean => name.includes(':')
const remove = ({ name, reason }: ItemRow): ItemOutcome => ({ name, outcome: 'removed', reason })
const spare = ({ name }: ItemRow, reason: string): ItemOutcome => ({ name, outcome: 'spared', reason })
