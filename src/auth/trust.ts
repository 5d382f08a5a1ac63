/** What an identity token must say to be trusted; the pure part of a trust rule. */
export interface TrustConditions {
  readonly issuer: string
  readonly audience: string
  /** Claims that must have exactly these values. */
  readonly claims: Readonly<Record<string, string | number | boolean>>
  readonly allowPullRequestTarget: boolean
}

/** One condition of a rule and what the token says about it. */
export interface ClaimCheck {
  readonly claim: string
  readonly expected: string
  /** What the token says, shortened; undefined where it does not say it. */
  readonly actual: string | undefined
  readonly matches: boolean
}

/** What a rule makes of a token, condition by condition. */
export interface TrustVerdict {
  readonly matches: boolean
  readonly checks: readonly ClaimCheck[]
}

/** What names of CI identities begin with; the name of their rule follows. */
export const CI_PREFIX = 'ci+'

/** A rule for the issuer of a token that was shown, as far as the choice between several goes by it. */
export interface Candidate {
  readonly name: string
  /** How many claims it names. */
  readonly claims: number
  readonly matches: boolean
}

/** Which rule a login goes by. */
export interface Choice<C extends Candidate> {
  /** Undefined where none fits, or not the one that the login names. */
  readonly chosen: C | undefined
  /** What decided: the user name, or that no other fits, the most claims, the greatest age. */
  readonly by: 'name' | 'only' | 'claims' | 'age'
  /** The one that the login names, where it names one. */
  readonly named?: C
}

/**
 * Chooses among the rules of a token's issuer, oldest first. A user name that is a rule's, with or without
 * {@link CI_PREFIX}, chooses that one and no other. Else the rule with the most claims of those that fit, so that one
 * that wants less does not take the jobs of one that wants more; of several the oldest, so that a new rule changes nobody.
 */
export function chooseRule<C extends Candidate>(candidates: readonly C[], user: string | undefined): Choice<C> {
  const named = candidates.find(({ name }) => user === name || user === `${CI_PREFIX}${name}`)
  if (named !== undefined) return { chosen: named.matches ? named : undefined, by: 'name', named }
  const fitting = candidates.filter(({ matches }) => matches)
  const most = Math.max(...fitting.map(({ claims }) => claims))
  const [chosen, ...equal] = fitting.filter(({ claims }) => claims === most)
  return { chosen, by: fitting.length <= 1 ? 'only' : equal.length === 0 ? 'claims' : 'age' }
}

/**
 * Why a candidate was chosen or not, in one sentence for people. `nameOf` is how another may be called: it can be a rule
 * that whoever asks does not see.
 */
export function choiceText<C extends Candidate>(
  candidate: C,
  { chosen, by, named }: Choice<C>,
  nameOf: (candidate: C) => string,
): string {
  const { name, claims, matches } = candidate
  if (named !== undefined) return `the login names ${named === candidate ? 'it' : nameOf(named)}`
  if (!matches || chosen === undefined) return 'it does not fit'
  if (chosen === candidate) {
    if (by === 'only') return 'it is the only one that fits'
    const most = `the most claims (${claims})`
    return by === 'claims' ? `of those that fit it has ${most}` : `of those that fit with ${most} it is the oldest`
  }
  const why = chosen.claims > claims ? 'fits with more claims' : 'fits with as many claims and is older'
  return `${nameOf(chosen)} ${why}: log in as ${CI_PREFIX}${name} to be taken for this one`
}

/** Of github.com, and of an enterprise with its data in a place of its own. */
const GITHUB_HOST = /^token\.actions\.(?:githubusercontent|[a-z0-9-]+\.ghe)\.com$/
/** Claims that only tokens of GitHub or GitLab have, and that say a name which can be given up. */
const GITHUB_NAMES = ['repository', 'repository_owner', 'job_workflow_ref', 'workflow_ref']
const GITLAB_NAMES = [
  'project_path',
  'namespace_path',
  'job_project_path',
  'job_namespace_path',
  'ci_config_ref_uri',
  'user_login',
]
const MAX_SHOWN = 200

/**
 * Compares the claims of a token, whose signature and times are checked elsewhere, with a rule. Values are equal only
 * within their type; ids are the same as a number and as its digits, because GitHub writes them as strings; `true` is
 * the same as `"true"`, because GitLab writes that.
 */
export function judgeTrust(rule: TrustConditions, claims: Readonly<Record<string, unknown>>): TrustVerdict {
  const checks = [check(claims, 'iss', rule.issuer), audienceCheck(claims, rule.audience)]
  for (const [claim, expected] of Object.entries(rule.claims)) checks.push(check(claims, claim, expected))
  const event = valueOf(claims, 'event_name')
  if (!rule.allowPullRequestTarget && event === 'pull_request_target') {
    checks.push({ claim: 'event_name', expected: 'not pull_request_target', actual: event, matches: false })
  }
  return { matches: checks.every(({ matches }) => matches), checks }
}

/**
 * Why a rule would trust more than its writer means, or undefined where it is sound. Names of owners and repositories
 * can be given up and taken by somebody else; their ids cannot. GitHub and GitLab of one's own may have any address, so
 * they are known by their claims as well.
 */
export function trustFault(rule: TrustConditions): string | undefined {
  const names = (claim: string): boolean => Object.hasOwn(rule.claims, claim)
  if (rule.audience === '' || rule.audience.includes('*')) return 'the audience must be exact'
  const subject = valueOf(rule.claims, 'sub')
  const begins = (...starts: readonly string[]): boolean =>
    typeof subject === 'string' && starts.some(start => subject.startsWith(start))
  const isGitHub = isGitHubIssuer(rule.issuer) || GITHUB_NAMES.some(names) || begins('repo:', 'repository_owner:')
  if (isGitHub && !names('repository_id') && !names('repository_owner_id')) {
    return 'name repository_id or repository_owner_id: a name can be taken over by somebody else, an id cannot'
  }
  const isGitLab = isGitLabIssuer(rule.issuer) || GITLAB_NAMES.some(names) || begins('project_path:', 'namespace_path:')
  if (isGitLab && !names('project_id') && !names('namespace_id')) {
    return 'name project_id or namespace_id: a path can be taken over by somebody else, an id cannot'
  }
  return undefined
}

/** The conditions that a token misses, as text for people: `repository_id is "7"`. Says nothing of the rule's values. */
export function mismatchText(verdict: TrustVerdict): string {
  return verdict.checks
    .filter(({ matches }) => !matches)
    .map(({ claim, actual }) =>
      actual === undefined ? `${claim} is missing` : `${claim} is ${JSON.stringify(actual)}`,
    )
    .join(', ')
}

function isGitHubIssuer(issuer: string): boolean {
  return GITHUB_HOST.test(URL.parse(issuer)?.hostname ?? '') || issuer.endsWith('/_services/token')
}

function isGitLabIssuer(issuer: string): boolean {
  return (URL.parse(issuer)?.hostname ?? '').split('.').includes('gitlab')
}

/** A token for us and for others could be shown to us by those others, so ours must be the only audience. */
function audienceCheck(claims: Readonly<Record<string, unknown>>, expected: string): ClaimCheck {
  const aud = valueOf(claims, 'aud')
  const only: unknown = Array.isArray(aud) && aud.length === 1 ? aud[0] : aud
  return { claim: 'aud', expected, actual: shown(aud), matches: only === expected }
}

function check(
  claims: Readonly<Record<string, unknown>>,
  claim: string,
  expected: string | number | boolean,
): ClaimCheck {
  const actual = valueOf(claims, claim)
  return { claim, expected: String(expected), actual: shown(actual), matches: isEqual(actual, expected) }
}

function valueOf(claims: Readonly<Record<string, unknown>>, claim: string): unknown {
  return Object.hasOwn(claims, claim) ? claims[claim] : undefined
}

function isEqual(actual: unknown, expected: string | number | boolean): boolean {
  if (actual === expected) return true
  if (typeof expected === 'boolean') return actual === String(expected)
  const [a, b] = [idOf(actual), idOf(expected)]
  return a !== undefined && a === b
}

/** The digits of an id; undefined for what is none, such as a number too large to be exact. */
function idOf(value: unknown): string | undefined {
  if (typeof value === 'number') return Number.isSafeInteger(value) && value >= 0 ? String(value) : undefined
  return typeof value === 'string' && /^(?:0|[1-9]\d{0,19})$/.test(value) ? value : undefined
}

function shown(value: unknown): string | undefined {
  if (value === undefined) return undefined
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  return text.slice(0, MAX_SHOWN)
}
