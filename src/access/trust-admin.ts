import type { PatternActions } from '../auth/identity.ts'
import { trustFault } from '../auth/trust.ts'
import { putGrant } from '../metadata/grants.ts'
import { deletePrincipal, findPrincipals, insertPrincipal } from '../metadata/principals.ts'
import * as rows from '../metadata/trust-rules.ts'
import { RegistryError } from '../oci/errors.ts'
import { type Actor, type AdministrationContext, EVERYTHING, patternsOf, record, requireAdmin } from './actor.ts'
import { checkPatterns } from './grant-admin.ts'
import { CI_PREFIX, checkName, found, unlessTaken } from './names.ts'

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
  await requireAdmin(context.db, actor, rule.grants.length === 0 ? [EVERYTHING] : patternsOf(rule.grants))
  const createdBy = actor.identity.name
  await context.db.transaction(async tx => {
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

/** Rules by name, after `last`. @throws RegistryError DENIED. */
export async function listTrustRules(
  context: AdministrationContext,
  actor: Actor,
  last: string,
  limit: number,
): Promise<readonly TrustRule[]> {
  await requireAdmin(context.db, actor)
  return (await rows.listTrustRules(context.db, last, limit)).map(row => ({
    name: row.name,
    issuer: row.issuer,
    audience: row.audience,
    claims: row.claims,
    singleUse: row.single_use,
    allowPullRequestTarget: row.allow_pull_request_target,
    sessionSeconds: row.session_seconds,
  }))
}

/** Removes a rule, and with it every session that came of it. @throws RegistryError DENIED, NOT_FOUND. */
export async function deleteTrustRule(context: AdministrationContext, actor: Actor, name: string): Promise<void> {
  await requireAdmin(context.db, actor)
  const principalId = await context.db.transaction(async tx => {
    const rule = found(await rows.findTrustRule(tx, name), `trust rule ${name}`)
    const [principal] = await findPrincipals(tx, [rule.principal_id])
    if (principal === undefined) throw new RegistryError('NOT_FOUND', { message: `there is no trust rule ${name}` })
    await deletePrincipal(tx, principal.id)
    await record(tx, actor, 'trust.delete', { rule: name })
    return principal.id
  })
  context.onPrincipalChanged(principalId)
}
