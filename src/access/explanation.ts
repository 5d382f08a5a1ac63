import { ANONYMOUS, type Action } from '../auth/identity.ts'
import { type Decision, decideFor } from '../auth/policy.ts'
import { CI_PREFIX } from '../auth/trust.ts'
import type { Queryable } from '../metadata/database.ts'
import { grantsOfGroup } from '../metadata/grants.ts'
import { findGroup } from '../metadata/groups.ts'
import { type PrincipalRow, findPrincipal } from '../metadata/principals.ts'
import { parseName } from '../oci/name.ts'
import { type Actor, type AdministrationContext, requireAdmin } from './actor.ts'
import type { GrantSubject } from './grant-admin.ts'
import { explain, presentGrant } from './grants.ts'
import { ROBOT_PREFIX, found } from './names.ts'

/** May somebody do that? */
export interface AccessQuestion {
  readonly subject: GrantSubject
  readonly action: Action
  readonly repository: string
}

/**
 * Whether somebody may do an action on a repository, and which grant decides. A robot or CI identity may be named without
 * its prefix, where nobody else is called that. A principal may ask about itself, and who administers the repository about
 * everybody. @throws RegistryError DENIED, NOT_FOUND, NAME_INVALID.
 */
export async function explainAccess(
  { db, isOpen }: AdministrationContext,
  actor: Actor,
  { subject, action, repository }: AccessQuestion,
): Promise<Decision> {
  const name = parseName(repository)
  if (isOpen) return { allowed: true, reason: 'logins are off (auth.mode): everybody may do everything' }
  const principal = subject.kind === 'principal' ? await findByName(db, subject.name) : undefined
  if (principal === undefined || principal.id !== actor.identity.principalId) await requireAdmin(db, actor, [name])
  switch (subject.kind) {
    case 'principal':
      return await explainPrincipal(db, found(principal, `principal ${subject.name}`), action, name)
    case 'group': {
      const group = found(await findGroup(db, subject.name), `group ${subject.name}`)
      const grants = (await grantsOfGroup(db, group.id)).map(presentGrant)
      return decideFor(`group ${subject.name}`, grants, action, name)
    }
    case 'authenticated': {
      const grants = (await grantsOfGroup(db, undefined)).map(presentGrant)
      return decideFor('everyone who logged in', grants, action, name)
    }
    case 'anonymous':
      return await explain(db, ANONYMOUS, action, name)
  }
}

async function findByName(db: Queryable, name: string): Promise<PrincipalRow | undefined> {
  for (const prefix of ['', ROBOT_PREFIX, CI_PREFIX]) {
    const principal = await findPrincipal(db, `${prefix}${name}`)
    if (principal !== undefined) return principal
  }
  return undefined
}

async function explainPrincipal(
  db: Queryable,
  { active, kind, name, id }: PrincipalRow,
  action: Action,
  repository: string,
): Promise<Decision> {
  if (!active) return { allowed: false, reason: `${name} is disabled or has expired` }
  return await explain(db, { kind, name, principalId: id }, action, repository)
}
