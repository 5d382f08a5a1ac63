import { setImmediate } from 'node:timers/promises'
import { describeUse } from './describe.ts'
import { type RepositoryFacts, type TagFacts, type UseTimes, subjectOf } from './facts.ts'
import { type Judge, inSteps, judgeOf, matcherOf } from './judges.ts'
import type { KeepRule } from './rules.ts'

/** What of a policy decides. */
export interface PlanRules {
  /** Patterns of the tags that the policy is about. Of other tags only those go whose subject goes. */
  readonly tags: readonly string[]
  readonly rules: readonly KeepRule[]
  /** Whether manifests without a tag are looked at as well. */
  readonly untagged: boolean
}

/** What becomes of a tag, or of an untagged manifest, whose name is its digest. */
export interface Verdict {
  readonly name: string
  readonly digest: string
  readonly goes: boolean
  /** The place of the rule that keeps it, from 1. */
  readonly rule?: number
  /** In words. */
  readonly reason: string
}

/** What becomes of a repository. */
export interface Plan {
  /** Of each tag that the policy is about or that follows one, in the order of the facts. */
  readonly tags: readonly Verdict[]
  readonly untagged: readonly Verdict[]
}

/**
 * What a policy does to a repository: what any rule keeps stays, what no rule keeps goes, and what is about something
 * else (a signature) stays and goes with it. Pure; what it cannot tell it keeps. Yields now and then, so that a
 * repository of many tags does not hold up the whole process.
 */
export function* planInSteps(policy: PlanRules, facts: RepositoryFacts): Generator<undefined, Plan> {
  const concerns = matcherOf(policy.tags)
  const own: TagFacts[] = []
  yield* inSteps(facts.tags, tag => {
    if (subjectOf(tag) === undefined && concerns(tag.name)) own.push(tag)
  })
  const judges: Judge[] = []
  for (const rule of policy.rules) judges.push(yield* judgeOf(rule, judges.length + 1, own, facts))
  const always = judges.filter(({ rule }) => rule.keep === 'all')
  const decided = new Map<string, Verdict | undefined>()
  yield* inSteps(own, tag => decided.set(tag.name, judge(judges, tag, facts)))
  const follow = followersOf(facts, decided, {
    keep: tag => keptBy(always, tag),
    judge: tag => (concerns(tag.name) ? judge(judges, tag, facts, 'what it is about is gone') : undefined),
  })
  const tags: Verdict[] = []
  yield* inSteps(facts.tags, tag => {
    const verdict = subjectOf(tag) === undefined ? decided.get(tag.name) : follow(tag)
    if (verdict !== undefined && (verdict.goes || concerns(tag.name))) tags.push(verdict)
  })
  const untagged: Verdict[] = []
  const manifests = policy.untagged ? facts.untagged : []
  yield* inSteps(manifests, manifest => untagged.push(judgeUntagged(judges, manifest, facts)))
  return { tags, untagged }
}

/** {@link planInSteps}, with everything else that waits let in between its steps. */
export async function planRetention(policy: PlanRules, facts: RepositoryFacts): Promise<Plan> {
  const steps = planInSteps(policy, facts)
  for (;;) {
    const step = steps.next()
    if (step.done === true) return step.value
    await setImmediate()
  }
}

/**
 * Decides about tags that are about something else: they stay while a tag on it, or on an index that names it, stays.
 * Adds to `decided`. `alone` are for what a rule keeps whatever happens, and for what is about nothing that is there.
 */
function followersOf(
  { tags, subjects }: RepositoryFacts,
  decided: Map<string, Verdict | undefined>,
  alone: {
    readonly keep: (tag: TagFacts) => Verdict | undefined
    readonly judge: (tag: TagFacts) => Verdict | undefined
  },
): (tag: TagFacts) => Verdict | undefined {
  const wanted = new Set(tags.flatMap(tag => subjectOf(tag) ?? []))
  for (const index of [...subjects.values()].flat()) wanted.add(index)
  const byDigest = Map.groupBy(
    wanted.size === 0 ? [] : tags.filter(({ digest }) => wanted.has(digest)),
    tag => tag.digest,
  )
  const judgeFollower = (tag: TagFacts, subject: string): Verdict | undefined => {
    const owners = [subject, ...(subjects.get(subject) ?? [])]
      .flatMap(digest => byDigest.get(digest) ?? [])
      .filter(owner => owner !== tag)
    const stays = owners.find(owner => decide(owner)?.goes !== true)
    if (stays !== undefined) return { ...named(tag), goes: false, reason: `it is about ${stays.name}, which stays` }
    const [owner] = owners
    if (owner !== undefined) return { ...named(tag), goes: true, reason: `it is about ${owner.name}, which goes` }
    if (!subjects.has(subject)) return alone.judge(tag)
    return { ...named(tag), goes: false, reason: 'what it is about is here, without a tag' }
  }
  const decide = (tag: TagFacts): Verdict | undefined => {
    const subject = subjectOf(tag)
    if (subject === undefined || decided.has(tag.name)) return decided.get(tag.name)
    // Names can be made to go round in a circle, which stays.
    decided.set(tag.name, { ...named(tag), goes: false, reason: 'it is about itself' })
    const verdict = alone.keep(tag) ?? judgeFollower(tag, subject)
    decided.set(tag.name, verdict)
    return verdict
  }
  return decide
}

const named = ({ name, digest }: TagFacts): { name: string; digest: string } => ({ name, digest })

function keptBy(judges: readonly Judge[], tag: TagFacts): Verdict | undefined {
  for (const { place, words, keeps } of judges) {
    const reason = keeps(tag)
    if (reason !== undefined) return { ...named(tag), goes: false, rule: place, reason: `${words}: ${reason}` }
  }
  return undefined
}

function judge(judges: readonly Judge[], tag: TagFacts, facts: RepositoryFacts, because = 'no rule keeps it'): Verdict {
  return keptBy(judges, tag) ?? { ...named(tag), goes: true, reason: `${because}: ${describeUse(tag, facts)}` }
}

function judgeUntagged(judges: readonly Judge[], manifest: UseTimes, facts: RepositoryFacts): Verdict {
  const able = judges.filter(
    ({ rule }) => rule.tags === undefined && rule.keep !== 'newest' && rule.keep !== 'versions',
  )
  return judge(able, { ...manifest, name: manifest.digest, subject: undefined }, facts)
}
