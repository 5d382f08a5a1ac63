import type { Action, Identity, PatternActions } from '../auth/identity.ts'
import { patternFault } from '../auth/pattern.ts'
import type { Decision } from '../auth/policy.ts'
import type { Transaction } from '../metadata/database.ts'
import * as rows from '../metadata/grants.ts'
import { findGroup } from '../metadata/groups.ts'
import { findPrincipal } from '../metadata/principals.ts'
import { RegistryError } from '../oci/errors.ts'
import { parseName } from '../oci/name.ts'
import { type Actor, type AdministrationContext, keepingAdministrator, record, requireAdmin } from './actor.ts'
import { explain } from './grants.ts'
import { found } from './names.ts'

/** To whom is granted: a principal or group by name, everyone who logged in, or everyone. */
export type GrantSubject =
  | { readonly kind: 'principal' | 'group'; readonly name: string }
  | { readonly kind: 'authenticated' | 'anonymous' }

/** A grant as administrators see it. */
export interface GrantInfo extends PatternActions {
  readonly id: number
  readonly subject: GrantSubject
  readonly createdAt: Date
  readonly createdBy: string | null
}

/** Checks patterns that a person wrote. @throws RegistryError INVALID. */
export function checkPatterns(entries: readonly PatternActions[]): void {
  for (const { pattern } of entries) {
    const fault = patternFault(pattern)
    if (fault !== undefined) throw new RegistryError('INVALID', { message: `${pattern.slice(0, 300)}: ${fault}` })
  }
}

/**
 * Grants actions on a pattern; a grant of the same subject and pattern gets these actions instead of its own. Everyone
 * can only be granted `pull`. @throws RegistryError DENIED, INVALID, NOT_FOUND, CONFLICT.
 */
export async function addGrant(
  context: AdministrationContext,
  actor: Actor,
  grant: PatternActions & { readonly subject: GrantSubject },
): Promise<number> {
  checkPatterns([grant])
  await requireAdmin(context.db, actor, [grant.pattern])
  const { subject, pattern, actions } = grant
  if (subject.kind === 'anonymous' && actions.some(action => action !== 'pull')) {
    throw new RegistryError('INVALID', { message: 'everyone, logged in or not, can only be granted pull' })
  }
  return await context.db.transaction(async tx => {
    const row = { subject: subject.kind, ...(await subjectIds(tx, subject)), pattern, actions }
    // The grant may replace one that made somebody an administrator.
    const id = await keepingAdministrator(tx, () => rows.putGrant(tx, { ...row, createdBy: actor.identity.name }))
    await record(tx, actor, 'grant.add', { grant: id, subject, pattern, actions })
    return id
  })
}

async function subjectIds(tx: Transaction, subject: GrantSubject): Promise<{ principalId?: number; groupId?: number }> {
  switch (subject.kind) {
    case 'principal':
      return { principalId: found(await findPrincipal(tx, subject.name), `principal ${subject.name}`).id }
    case 'group':
      return { groupId: found(await findGroup(tx, subject.name), `group ${subject.name}`).id }
    case 'authenticated':
    case 'anonymous':
      return {}
  }
}

/** Grants in the order they were made, after `lastId`; only those to one principal or group, where named. */
export async function listGrants(
  context: AdministrationContext,
  actor: Actor,
  of: { readonly principal?: string; readonly group?: string },
  lastId: number,
  limit: number,
): Promise<readonly GrantInfo[]> {
  const { db } = context
  await requireAdmin(db, actor)
  const principal =
    of.principal === undefined ? undefined : found(await findPrincipal(db, of.principal), `principal ${of.principal}`)
  const group = of.group === undefined ? undefined : found(await findGroup(db, of.group), `group ${of.group}`)
  const filter = {
    ...(principal === undefined ? {} : { principalId: principal.id }),
    ...(group === undefined ? {} : { groupId: group.id }),
  }
  return (await rows.listGrants(db, filter, lastId, limit)).map(present)
}

function present(row: rows.GrantRow): GrantInfo {
  const subject: GrantSubject =
    row.subject === 'principal' || row.subject === 'group'
      ? { kind: row.subject, name: row.subject_name ?? '' }
      : { kind: row.subject }
  const { id, pattern, actions, created_at: createdAt, created_by: createdBy } = row
  return { id, subject, pattern, actions, createdAt, createdBy }
}

/** Takes a grant back. @throws RegistryError DENIED, NOT_FOUND, CONFLICT. */
export async function removeGrant(context: AdministrationContext, actor: Actor, id: number): Promise<void> {
  const { db } = context
  const grant = found(await rows.findGrant(db, id), `grant ${id}`)
  await requireAdmin(db, actor, [grant.pattern])
  await db.transaction(async tx => {
    const gone = await keepingAdministrator(tx, () => rows.deleteGrant(tx, id))
    found(gone || undefined, `grant ${id}`)
    await record(tx, actor, 'grant.remove', { grant: id, pattern: grant.pattern, actions: grant.actions })
  })
}

/**
 * Whether a principal (or everyone, without a name) may do an action on a repository, and which grant decides. A
 * principal may ask about itself. @throws RegistryError DENIED, NOT_FOUND, NAME_INVALID.
 */
export async function explainAccess(
  context: AdministrationContext,
  actor: Actor,
  question: { readonly principal?: string; readonly action: Action; readonly repository: string },
): Promise<Decision> {
  const { db } = context
  const name = parseName(question.repository)
  if (question.principal !== actor.identity.name || actor.identity.kind === 'local') await requireAdmin(db, actor)
  if (question.principal === undefined) return await explain(db, { kind: 'anonymous', name: '' }, question.action, name)
  const principal = found(await findPrincipal(db, question.principal), `principal ${question.principal}`)
  if (!principal.active) return { allowed: false, reason: `${principal.name} is disabled or has expired` }
  const identity: Identity = { kind: principal.kind, name: principal.name, principalId: principal.id }
  return await explain(db, identity, question.action, name)
}
