import type { Digest } from '../oci/digest.ts'
import { patternRegex } from '../oci/repository-pattern.ts'
import { matchingRepositories } from '../metadata/retention-facts.ts'
import { insertItems, insertRunRepository } from '../metadata/retention-items.ts'
import { setPlanned } from '../metadata/retention-runs.ts'
import { loadFacts } from './load.ts'
import { type Plan, type Verdict, planRetention } from './plan.ts'
import type { Work } from './work.ts'

const REPOSITORIES = 100
const ITEMS = 5_000

/**
 * Plans every repository of a run's policy and keeps the plan: of a plan each tag, of a run those that go. A repository
 * that would lose more than the policy's share is held, and of a plan every one. Goes on where another process stopped.
 */
export async function planRun({ context, run, signal, transaction }: Work): Promise<void> {
  if (run.is_planned) return
  await context.flushPulls()
  const policy = await transaction((_tx, current) => Promise.resolve(current))
  const lingering = policy.untagged ? context.lifetimes : undefined
  for (let cursor = run.cursor; ;) {
    const page = await matchingRepositories(context.db, patternRegex(policy.pattern), cursor, REPOSITORIES)
    for (const repository of page) {
      signal.throwIfAborted()
      const facts = await loadFacts(context.db, repository.id, lingering)
      const plan = await planRetention(policy, facts)
      const counts = { tags: facts.tags.length, ...goingOf(plan) }
      const isHeld = run.goal === 'plan' || (!run.is_confirmed && counts.going * 100 > policy.maxShare * counts.tags)
      await transaction(async tx => {
        await insertRunRepository(tx, run.id, {
          repository_id: repository.id,
          name: repository.name,
          planned_at: facts.now,
          ...counts,
          is_held: isHeld,
        })
        const verdicts = [...plan.tags, ...plan.untagged].filter(({ goes }) => goes || run.goal === 'plan')
        for (let start = 0; start < verdicts.length; start += ITEMS) {
          await insertItems(tx, run.id, repository.id, verdicts.slice(start, start + ITEMS).map(itemOf))
        }
        await setPlanned(tx, run.id, { cursor: repository.name })
      })
      cursor = repository.name
    }
    if (page.length < REPOSITORIES) break
  }
  await transaction(tx => setPlanned(tx, run.id, 'all'))
}

function goingOf({ tags, untagged }: Plan): { going: number; untagged: number } {
  return { going: tags.filter(({ goes }) => goes).length, untagged: untagged.filter(({ goes }) => goes).length }
}

function itemOf({ name, digest, goes, rule, reason }: Verdict) {
  return { name, digest: digest as Digest, goes, rule: rule ?? null, reason }
}
