import type { RepositoryFacts, UseTimes } from './facts.ts'

/** When something was pushed, in words. */
export function describePush({ pushedAt }: UseTimes, { now }: RepositoryFacts): string {
  return `pushed ${describeAge(now, pushedAt)}`
}

/** When something was pushed and last pulled, in words. */
export function describeUse(times: UseTimes, facts: RepositoryFacts): string {
  const pushed = describePush(times, facts)
  if (times.pulledAt !== undefined) return `${pushed}, last pulled ${describeAge(facts.now, times.pulledAt)}`
  if (times.pushedAt >= facts.countedSince) return `${pushed}, not pulled since`
  return `${pushed}, not pulled since pulls are counted (${describeAge(facts.now, facts.countedSince)})`
}

const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS
const DAY_MS = 24 * HOUR_MS

function describeAge(now: Date, at: Date): string {
  const ms = now.getTime() - at.getTime()
  const [size, unit] =
    ms >= 2 * DAY_MS ? [DAY_MS, 'days'] : ms >= 2 * HOUR_MS ? [HOUR_MS, 'hours'] : [MINUTE_MS, 'minutes']
  return `${Math.max(0, Math.floor(ms / size))} ${unit} ago`
}
