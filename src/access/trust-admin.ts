import type { PatternActions } from '../auth/identity.ts'
import { CI_PREFIX, type TrustVerdict, choiceText, chooseRule, trustFault } from '../auth/trust.ts'
import type { Queryable } from '../metadata/database.ts'
import { grantedPatterns, putGrant } from '../metadata/grants.ts'
import { deletePrincipal, insertPrincipal } from '../metadata/principals.ts'
import * as rows from '../metadata/trust-rules.ts'
import { RegistryError } from '../oci/errors.ts'
import {
  type Actor,
  type AdministrationContext,
  administeredBy,
  asAdmin,
  lockAdministrators,
  patternsOf,
  record,
} from './actor.ts'
import { checkPatterns } from './grant-admin.ts'
import { judgeAll } from './ci-login.ts'
import { checkName, found, unlessTaken } from './names.ts'
import { type Page, type PageRequest, pageOf } from './page.ts'

/** Which identity tokens of a CI system are trusted, and what their bearers may. */
export interface TrustRule {
  readonly name: string
  /** The issuer's URL, exactly as the tokens say it. */
  readonly issuer: string
  /** The audience the tokens must be made for; never a wildcard. */
  readonly audience: string
  /** Claims that must have exactly these values. */
  readonly claims: Readonly<Record<string, string | number | boolean>>
  /** Whether an identity token is good for one login only. */
  readonly singleUse: boolean
  /** Whether jobs that run on a pull request of a stranger with the rights of the target are let in. */
  readonly allowPullRequestTarget: boolean
  /** How long a job may go on with what it got, in seconds. */
  readonly sessionSeconds: number
}

/** Adds a rule with what its identities are granted. @throws RegistryError DENIED, INVALID, CONFLICT. */
export async function createTrustRule(
  context: AdministrationContext,
  actor: Actor,
  rule: TrustRule & { readonly grants: readonly PatternActions[] },
): Promise<void> {
  const name = checkName(rule.name, 'trust rule')
  checkPatterns(rule.grants)
  const fault = trustFault(rule)
  if (fault !== undefined) throw new RegistryError('INVALID', { message: fault })
  const createdBy = actor.identity.name
  await asAdmin(context.db, actor, patternsOf(rule.grants), async tx => {
    const principalId = unlessTaken(
      await insertPrincipal(tx, { kind: 'ci', name: `${CI_PREFIX}${name}`, createdBy }),
      `trust rule ${name}`,
    )
    for (const { pattern, actions } of rule.grants) {
      await putGrant(tx, { subject: 'principal', principalId, pattern, actions, createdBy })
    }
    await rows.insertTrustRule(tx, {
      principal_id: principalId,
      name,
      issuer: rule.issuer,
      audience: rule.audience,
      claims: rule.claims,
      single_use: rule.singleUse,
      allow_pull_request_target: rule.allowPullRequestTarget,
      session_seconds: rule.sessionSeconds,
      created_by: createdBy,
    })
    await record(tx, actor, 'trust.create', { ...rule })
  })
}

/** Rules by name: those that the actor may remove. @throws RegistryError DENIED. */
export async function listTrustRules(
  context: AdministrationContext,
  actor: Actor,
  { last, limit }: PageRequest,
): Promise<Page<TrustRule>> {
  const rules = await rows.listTrustRules(context.db, last, limit + 1)
  return pageOf(rules, limit, { key: ({ name }) => name, present, keep: await mayRemove(context.db, actor, rules) })
}

/** Removes a rule, and with it every session that came of it. @throws RegistryError DENIED, NOT_FOUND. */
export async function deleteTrustRule(context: AdministrationContext, actor: Actor, name: string): Promise<void> {
  const id = await context.db.transaction(async tx => {
    await lockAdministrators(tx)
    const rule = await rows.findTrustRule(tx, name)
    const keep = await mayRemove(tx, actor, rule === undefined ? [] : [rule])
    const { principal_id: id } = found(rule !== undefined && keep(rule) ? rule : undefined, `trust rule ${name}`)
    found((await deletePrincipal(tx, id)) || undefined, `trust rule ${name}`)
    await record(tx, actor, 'trust.delete', { rule: name })
    return id
  })
  context.onPrincipalChanged(id)
}

/** What one rule makes of an identity token. */
export interface TrustExplanation extends TrustVerdict {
  readonly rule: string
  /** Whether a login goes by it. */
  readonly chosen: boolean
  /** Why it is chosen or not, in one sentence. */
  readonly reason: string
}

/**
 * What each rule of a token's issuer, of those that the actor may remove, makes of the token's claims, condition by
 * condition, and which of all rules a login as `user` goes by. Signature and times are not looked at.
 * @throws RegistryError DENIED.
 */
export async function testTrust(
  context: AdministrationContext,
  actor: Actor,
  { claims, user }: { readonly claims: Readonly<Record<string, unknown>>; readonly user?: string },
): Promise<readonly TrustExplanation[]> {
  const { iss: issuer } = claims
  const rules = typeof issuer === 'string' ? await rows.trustRulesOf(context.db, issuer) : []
  const keep = await mayRemove(context.db, actor, rules)
  const judged = judgeAll(rules, claims)
  const choice = chooseRule(judged, user)
  const nameOf = ({ rule }: (typeof judged)[number]): string => (keep(rule) ? rule.name : 'a rule of others')
  return judged
    .filter(({ rule }) => keep(rule))
    .map(one => ({
      rule: one.name,
      chosen: one === choice.chosen,
      reason: choiceText(one, choice, nameOf),
      ...one.verdict,
    }))
}

/** Whether an actor administers all that a rule's identities were granted. */
async function mayRemove(
  db: Queryable,
  actor: Actor,
  rules: readonly rows.TrustRuleRow[],
): Promise<(rule: rows.TrustRuleRow) => boolean> {
  const isWithin = await administeredBy(db, actor)
  const patterns = await grantedPatterns(
    db,
    rules.map(rule => rule.principal_id),
  )
  return rule => isWithin(patterns.get(rule.principal_id) ?? [])
}

function present(row: rows.TrustRuleRow): TrustRule {
  return {
    name: row.name,
    issuer: row.issuer,
    audience: row.audience,
    claims: row.claims,
    singleUse: row.single_use,
    allowPullRequestTarget: row.allow_pull_request_target,
    sessionSeconds: row.session_seconds,
  }
}
