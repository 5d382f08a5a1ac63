/** Which tags a rule concerns: a pattern of tags; absent: all. */
interface OfTags {
  readonly tags?: string | undefined
}

/** What keeps tags. Durations in seconds. */
export type KeepRule =
  /** The `count` tags that were pushed last. */
  | (OfTags & { readonly keep: 'newest'; readonly count: number })
  /** The tags of the `count` highest versions, of those tags that are semantic versions. */
  | (OfTags & { readonly keep: 'versions'; readonly count: number })
  /** What was pushed, or pulled, no longer ago. What has not been pulled yet counts as pulled when it was pushed. */
  | (OfTags & { readonly keep: 'pushed' | 'pulled'; readonly withinSeconds: number })
  | (OfTags & { readonly keep: 'all' })

const UNITS: Readonly<Record<string, number>> = { d: 86_400, h: 3_600, m: 60, s: 1 }

/** How people write rules. */
export const RULE_SYNTAX =
  '"newest 10", "versions 10", "pushed within 14d", "pulled within 30d" or "all", each with "of PATTERN" behind it where it concerns only tags of a pattern'

/** A rule as people write it, such as `versions 10 of v*`; undefined for what is none. */
export function parseRule(text: string): KeepRule | undefined {
  const [, rule = '', pattern] = /^(.*?)(?: of (\S+))?$/.exec(text.trim()) ?? []
  const tags = pattern === undefined ? {} : { tags: pattern }
  if (rule === 'all') return { keep: 'all', ...tags }
  const counted = /^(newest|versions) (\d{1,6})$/.exec(rule)
  if (counted !== null) return { keep: counted[1] as 'newest' | 'versions', count: Number(counted[2]), ...tags }
  const timed = /^(pushed|pulled) within ([1-9]\d{0,5})([dhms])$/.exec(rule)
  if (timed === null) return undefined
  const withinSeconds = Number(timed[2]) * (UNITS[timed[3] ?? ''] ?? 1)
  return { keep: timed[1] as 'pushed' | 'pulled', withinSeconds, ...tags }
}

/** The text that {@link parseRule} reads as this rule. */
export function describeRule(rule: KeepRule): string {
  const of = rule.tags === undefined ? '' : ` of ${rule.tags}`
  switch (rule.keep) {
    case 'all':
      return `all${of}`
    case 'newest':
    case 'versions':
      return `${rule.keep} ${rule.count}${of}`
    case 'pushed':
    case 'pulled':
      return `${rule.keep} within ${describeSeconds(rule.withinSeconds)}${of}`
  }
}

function describeSeconds(seconds: number): string {
  const [unit, size] = Object.entries(UNITS).find(([, each]) => seconds % each === 0) ?? ['s', 1]
  return `${seconds / size}${unit}`
}
