import jwt from 'jsonwebtoken'
import type { Provenance } from '../auth/identity.ts'
import { readToken } from '../auth/tokens.ts'
import { type Candidate, chooseRule, judgeTrust, mismatchText, type TrustVerdict } from '../auth/trust.ts'
import type { Database } from '../metadata/database.ts'
import { findPrincipals } from '../metadata/principals.ts'
import { takeJti, type TrustRuleRow, trustRulesOf } from '../metadata/trust-rules.ts'
import { RegistryError } from '../oci/errors.ts'
import { isStorable, storable } from '../oci/text.ts'
import type { Authenticator, Verdict } from './authenticator.ts'
import { IssuerFault } from './issuer-fetch.ts'
import type { IssuerKeys } from './issuer-keys.ts'

const CLOCK_TOLERANCE_SECONDS = 30
const ISSUER_RETRY_SECONDS = 10
const MAX_JTI_LENGTH = 255
const MAX_PROVENANCE_LENGTH = 500

/** Claims of GitHub and GitLab that say where content comes from, and the name they are kept under. */
const PROVENANCE: readonly (readonly [claim: string, name: string])[] = [
  ['iss', 'issuer'],
  ['sub', 'subject'],
  ['repository', 'repository'],
  ['project_path', 'repository'],
  ['sha', 'sha'],
  ['ref', 'ref'],
  ['run_id', 'run'],
  ['pipeline_id', 'run'],
  ['job_id', 'job'],
  ['actor', 'actor'],
  ['user_login', 'actor'],
  ['workflow_ref', 'workflow'],
  ['ci_config_ref_uri', 'workflow'],
]

/**
 * Identity tokens of CI jobs as passwords, where a trust rule names their issuer; the name shown matters only where it is
 * that of a rule.
 */
export function ciAuthenticator(db: Database, keys: IssuerKeys, now: () => number): Authenticator {
  return {
    name: 'ci',
    async check({ name, password }) {
      const issuer = readToken(password)?.claims['iss']
      if (typeof issuer !== 'string' || !isStorable(issuer)) return undefined
      const rules = await trustRulesOf(db, issuer)
      if (rules.length === 0) return undefined
      const claims = await verified(password, issuer, keys, now())
      if (typeof claims === 'string') return refused(claims)
      const judged = judgeAll(rules, claims)
      const choice = chooseRule(judged, name)
      if (choice.chosen === undefined) return noRule(judged, choice.named)
      const { rule } = choice.chosen
      if (rule.single_use && !(await takeOnce(db, issuer, claims))) {
        return refused('the identity token was used before, or has no jti, and the rule allows one use')
      }
      return await proof(db, rule, claims, now())
    },
  }
}

/** A rule with what it makes of claims. */
export interface JudgedRule extends Candidate {
  readonly rule: TrustRuleRow
  readonly verdict: TrustVerdict
}

/** What rules of the index make of claims, each for itself, in the order of the rules. */
export function judgeAll(
  rules: readonly TrustRuleRow[],
  claims: Readonly<Record<string, unknown>>,
): readonly JudgedRule[] {
  return rules.map(rule => {
    const verdict = judgeTrust({ ...rule, allowPullRequestTarget: rule.allow_pull_request_target }, claims)
    return { name: rule.name, claims: Object.keys(rule.claims).length, matches: verdict.matches, rule, verdict }
  })
}

/** The claims of a token that its issuer signed and that is in time, or why they are not to be trusted. */
async function verified(
  token: string,
  issuer: string,
  keys: IssuerKeys,
  nowMs: number,
): Promise<Readonly<Record<string, unknown>> | string> {
  const kid = readToken(token)?.header['kid']
  if (typeof kid !== 'string') return 'the identity token names no key'
  let key
  try {
    key = await keys.find(issuer, kid)
  } catch (cause) {
    if (!(cause instanceof IssuerFault)) throw cause
    throw new RegistryError('UNAVAILABLE', {
      message: 'the issuer of the identity token cannot be asked for its keys',
      headers: { 'Retry-After': String(ISSUER_RETRY_SECONDS) },
      cause,
    })
  }
  if (key === undefined) return 'the identity token names a key that its issuer does not have'
  try {
    const claims = jwt.verify(token, key.key, {
      algorithms: [...key.algorithms],
      issuer,
      clockTimestamp: Math.floor(nowMs / 1000),
      clockTolerance: CLOCK_TOLERANCE_SECONDS,
    })
    if (typeof claims === 'string' || typeof claims.exp !== 'number') return 'the identity token has no expiry'
    const issuedAt = claims.iat ?? 0
    if (issuedAt * 1000 > nowMs + CLOCK_TOLERANCE_SECONDS * 1000) return 'the identity token is of the future'
    return claims
  } catch (error) {
    return error instanceof jwt.TokenExpiredError
      ? 'the identity token has expired: ask the CI system for one in the step that logs in'
      : 'the identity token is not valid'
  }
}

async function takeOnce(db: Database, issuer: string, claims: Readonly<Record<string, unknown>>): Promise<boolean> {
  const { jti, exp } = claims
  if (typeof jti !== 'string' || jti === '' || jti.length > MAX_JTI_LENGTH) return false
  const forgetAt = new Date((Number(exp) + 2 * CLOCK_TOLERANCE_SECONDS) * 1000)
  return await db.transaction(tx => takeJti(tx, issuer, jti, forgetAt))
}

async function proof(
  db: Database,
  rule: TrustRuleRow,
  claims: Readonly<Record<string, unknown>>,
  nowMs: number,
): Promise<Verdict> {
  const [principal] = await findPrincipals(db, [rule.principal_id])
  if (principal?.active !== true) return refused(`the trust rule ${rule.name} is disabled`)
  return {
    refreshMs: rule.session_seconds * 1000,
    identity: {
      kind: 'ci',
      name: principal.name,
      principalId: principal.id,
      epoch: principal.epoch,
      endsAt: new Date(nowMs + rule.session_seconds * 1000),
      provenance: provenanceOf(claims),
    },
  }
}

function provenanceOf(claims: Readonly<Record<string, unknown>>): Provenance {
  const entries = PROVENANCE.flatMap(([claim, name]) => {
    const value = claims[claim]
    const isPlain = typeof value === 'string' || typeof value === 'number'
    return isPlain ? [[name, storable(String(value).slice(0, MAX_PROVENANCE_LENGTH))] as const] : []
  })
  return Object.fromEntries(entries)
}

/** The job learns what its token says where no rule fits, or not the one that it names. */
function noRule(judged: readonly JudgedRule[], named: JudgedRule | undefined): Verdict {
  if (named !== undefined) {
    const text = mismatchText(named.verdict).slice(0, 1_000)
    return refused(`the trust rule ${named.name}, which the login names, does not fit the identity token (${text})`)
  }
  const text = judged.map(({ name, verdict }) => `${name}: ${mismatchText(verdict)}`).join('; ')
  return refused(`no trust rule fits the identity token (${text.slice(0, 1_000)})`)
}

function refused(reason: string): Verdict {
  return { refused: reason, message: reason }
}
