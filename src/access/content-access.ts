import type { VisibleNames } from '../auth/authority.ts'
import type { Action } from '../auth/identity.ts'
import { RegistryError } from '../oci/errors.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Actor, AdministrationContext } from './actor.ts'
import { explain, visibleTo } from './grants.ts'

/** Makes sure that an actor may do an action on a repository. @throws RegistryError DENIED with the reason. */
export async function requireAction(
  { db }: AdministrationContext,
  { identity }: Actor,
  action: Action,
  name: RepositoryName,
): Promise<void> {
  const { allowed, reason } = await explain(db, identity, action, name)
  if (!allowed) throw new RegistryError('DENIED', { message: reason })
}

/** The repositories that an actor may pull. */
export async function visibleNames({ db }: AdministrationContext, { identity }: Actor): Promise<VisibleNames> {
  return await visibleTo(db, identity)
}
