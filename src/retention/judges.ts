import { type SemVer, parse as parseVersion } from 'semver'
import { tagMatcher } from '../oci/tag-pattern.ts'
import { describePush, describeUse } from './describe.ts'
import type { RepositoryFacts, TagFacts, UseTimes } from './facts.ts'
import { type KeepRule, describeRule } from './rules.ts'

/** A rule applied to the tags of one repository. */
export interface Judge {
  readonly rule: KeepRule
  /** From 1. */
  readonly place: number
  /** The rule as it is written. */
  readonly words: string
  /** Why the rule keeps a tag; undefined where it does not. */
  readonly keeps: (tag: UseTimes & { readonly name: string }) => string | undefined
}

/** The judge of a rule; `tags` are those that can take a place. */
export function* judgeOf(
  rule: KeepRule,
  place: number,
  tags: readonly TagFacts[],
  facts: RepositoryFacts,
): Generator<undefined, Judge> {
  const concerns = matcherOf(rule.tags === undefined ? [] : [rule.tags])
  const counted: TagFacts[] = []
  yield* inSteps(tags, tag => {
    if (concerns(tag.name)) counted.push(tag)
  })
  const keeps = yield* keeperOf(rule, counted, facts)
  return { rule, place, words: describeRule(rule), keeps: tag => (concerns(tag.name) ? keeps(tag) : undefined) }
}

/** `tags` are those that the rule concerns and that can take a place. */
function* keeperOf(
  rule: KeepRule,
  tags: readonly TagFacts[],
  facts: RepositoryFacts,
): Generator<undefined, Judge['keeps']> {
  switch (rule.keep) {
    case 'all':
      return () => 'whatever happens'
    case 'newest':
      return keepNewest(rule.count, tags, facts)
    case 'versions':
      return yield* keepVersions(rule.count, tags)
    case 'pushed':
      return tag => unlessOlder(facts, tag.pushedAt, rule.withinSeconds, () => describePush(tag, facts))
    case 'pulled':
      return tag => unlessOlder(facts, lastUse(tag, facts), rule.withinSeconds, () => describeUse(tag, facts))
  }
}

/** A reason to keep unless the time is known to be longer ago: what is no time, or in the future, is kept. */
function unlessOlder({ now }: RepositoryFacts, at: Date, seconds: number, why: () => string): string | undefined {
  return now.getTime() - at.getTime() > seconds * 1_000 ? undefined : why()
}

/** What was pushed before pulls were counted may have been pulled until then. */
function lastUse(times: UseTimes, { countedSince }: RepositoryFacts): Date {
  const known = [times.pushedAt, countedSince, times.pulledAt ?? times.pushedAt]
  return new Date(Math.max(...known.map(time => time.getTime())))
}

/** Tags that were pushed together with the last that fits stay with it. */
function keepNewest(count: number, tags: readonly TagFacts[], facts: RepositoryFacts): Judge['keeps'] {
  const times = Float64Array.from(tags, tag => tag.pushedAt.getTime()).sort()
  const least = count === 0 ? Infinity : (times.at(-count) ?? -Infinity)
  const newest = new Set(tags.filter(tag => !(tag.pushedAt.getTime() < least)).map(tag => tag.name))
  return tag => (newest.has(tag.name) ? describePush(tag, facts) : undefined)
}

/** A version with its tags: `1.2.3` and `v1.2.3` are one version. */
interface Version {
  readonly version: SemVer
  readonly names: string[]
}

function* keepVersions(count: number, tags: readonly TagFacts[]): Generator<undefined, Judge['keeps']> {
  // The highest so far, from the highest down; never more than fit.
  const highest: Version[] = []
  yield* inSteps(tags, ({ name }) => {
    const version = parseVersion(name)
    if (version === null) return
    const place = placeOf(version, highest)
    const known = highest[place]
    if (known?.version.compare(version) === 0) known.names.push(name)
    else if (place < count) {
      highest.splice(place, 0, { version, names: [name] })
      highest.length = Math.min(highest.length, count)
    }
  })
  const places = new Map(highest.flatMap(({ names }, index) => names.map(name => [name, index + 1] as const)))
  return ({ name }) => {
    const place = places.get(name)
    return place === undefined ? undefined : `version ${place} from the highest`
  }
}

/** Where a version stands, or would, in a list from the highest down. */
function placeOf(version: SemVer, highest: readonly Version[]): number {
  let [low, high] = [0, highest.length]
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((highest[middle]?.version.compare(version) ?? -1) > 0) low = middle + 1
    else high = middle
  }
  return low
}

/** Whether a tag matches any of the patterns; none, or `*`, means all. */
export function matcherOf(patterns: readonly string[]): (tag: string) => boolean {
  if (patterns.length === 0 || patterns.includes('*')) return () => true
  const matchers = patterns.map(tagMatcher)
  return tag => matchers.some(matches => matches(tag))
}

/** What one step looks at: some milliseconds of work. */
const STEP = 1_000

/** Does something with each item, in steps. */
export function* inSteps<T>(items: readonly T[], each: (item: T) => void): Generator<undefined, void> {
  for (let start = 0; start < items.length; start += STEP) {
    for (const item of items.slice(start, start + STEP)) each(item)
    yield
  }
}
