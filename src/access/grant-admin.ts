import type { Action, PatternActions } from '../auth/identity.ts'
import { patternFault } from '../oci/repository-pattern.ts'
import type { Transaction } from '../metadata/database.ts'
import * as rows from '../metadata/grants.ts'
import { findGroup } from '../metadata/groups.ts'
import { findPrincipal } from '../metadata/principals.ts'
import { RegistryError } from '../oci/errors.ts'
import {
  type Actor,
  type AdministrationContext,
  administeredBy,
  asAdmin,
  keepingAdministrator,
  lockAdministrators,
  record,
} from './actor.ts'
import { found } from './names.ts'
import { type Page, type PageRequest, idOf, pageOf } from './page.ts'

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

/** What those that nobody answers for can be granted at most. */
const SUBJECT_LIMITS: Partial<Record<GrantSubject['kind'], { allows: readonly Action[]; message: string }>> = {
  anonymous: { allows: ['pull'], message: 'everyone, logged in or not, can only be granted pull' },
  authenticated: {
    allows: ['pull', 'push', 'delete'],
    message: 'admin is granted to users, robots and groups, not to everyone who logged in',
  },
}

/** Checks patterns that a person wrote. @throws RegistryError INVALID. */
export function checkPatterns(entries: readonly PatternActions[]): void {
  for (const { pattern } of entries) {
    const fault = patternFault(pattern)
    if (fault !== undefined) throw new RegistryError('INVALID', { message: `${pattern.slice(0, 300)}: ${fault}` })
  }
}

/**
 * Grants actions on a pattern; a grant of the same subject and pattern gets these actions instead of its own. @throws RegistryError DENIED, INVALID, NOT_FOUND, CONFLICT.
 */
export async function addGrant(
  context: AdministrationContext,
  actor: Actor,
  grant: PatternActions & { readonly subject: GrantSubject },
): Promise<number> {
  checkPatterns([grant])
  const { subject, pattern, actions } = grant
  const most = SUBJECT_LIMITS[subject.kind]
  if (most !== undefined && actions.some(action => !most.allows.includes(action))) {
    throw new RegistryError('INVALID', { message: most.message })
  }
  return await asAdmin(context.db, actor, [pattern], async tx => {
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

/**
 * Grants in the order they were made, those that the actor may take back; only those to one principal or group, where
 * named. @throws RegistryError DENIED, NOT_FOUND.
 */
export async function listGrants(
  context: AdministrationContext,
  actor: Actor,
  of: { readonly principal?: string; readonly group?: string },
  { last, limit }: PageRequest,
): Promise<Page<GrantInfo>> {
  const { db } = context
  const isWithin = await administeredBy(db, actor)
  const principal =
    of.principal === undefined ? undefined : found(await findPrincipal(db, of.principal), `principal ${of.principal}`)
  const group = of.group === undefined ? undefined : found(await findGroup(db, of.group), `group ${of.group}`)
  const filter = {
    ...(principal === undefined ? {} : { principalId: principal.id }),
    ...(group === undefined ? {} : { groupId: group.id }),
  }
  const grants = await rows.listGrants(db, filter, idOf(last) ?? 0, limit + 1)
  return pageOf(grants, limit, { key: ({ id }) => String(id), present, keep: ({ pattern }) => isWithin([pattern]) })
}

function present(row: rows.GrantRow): GrantInfo {
  const subject: GrantSubject =
    row.subject === 'principal' || row.subject === 'group'
      ? { kind: row.subject, name: row.subject_name ?? '' }
      : { kind: row.subject }
  const { id, pattern, actions, created_at: createdAt, created_by: createdBy } = row
  return { id, subject, pattern, actions, createdAt, createdBy }
}

/**
 * Takes a grant back. To who does not administer its pattern it is not there, because the refusal would tell the pattern.
 * @throws RegistryError DENIED, NOT_FOUND, CONFLICT.
 */
export async function removeGrant(context: AdministrationContext, actor: Actor, grantId: string): Promise<void> {
  const id = idOf(grantId)
  await context.db.transaction(async tx => {
    await lockAdministrators(tx)
    const isWithin = await administeredBy(tx, actor)
    const row = id === undefined ? undefined : await rows.findGrant(tx, id)
    const grant = present(found(row !== undefined && isWithin([row.pattern]) ? row : undefined, `grant ${grantId}`))
    const gone = await keepingAdministrator(tx, () => rows.deleteGrant(tx, grant.id))
    found(gone || undefined, `grant ${grantId}`)
    const { subject, pattern, actions } = grant
    await record(tx, actor, 'grant.remove', { grant: grant.id, subject, pattern, actions })
  })
}
