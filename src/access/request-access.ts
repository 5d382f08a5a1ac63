import type { Access } from '../auth/authority.ts'
import type { Action, Identity } from '../auth/identity.ts'
import { type Grant, decide, implies } from '../auth/policy.ts'
import type { AccessEntry } from '../auth/scope.ts'

/** What the bearer of a token may do: what stands in it. */
export function tokenAccess(identity: Identity, entries: readonly AccessEntry[], shown: boolean): Access {
  const find = (name: string): AccessEntry | undefined =>
    entries.find(entry => entry.type === 'repository' && entry.name === name)
  return {
    identity,
    shown,
    may: (action, name) => {
      const actions = find(name)?.actions ?? []
      // What one action includes is a rule of ours: others grant each by itself, or all that Distribution knows.
      if (identity.kind === 'foreign') return action !== 'admin' && (actions.includes('*') || actions.includes(action))
      return implies(actions as readonly Action[], action)
    },
    repositoryId: name => find(name)?.repository,
    mayList: entries.some(
      ({ type, name, actions }) => type === 'registry' && name === 'catalog' && actions.includes('*'),
    ),
  }
}

/** What one who showed a name and a password may do: what was granted. */
export function grantedAccess(identity: Identity, grants: readonly Grant[]): Access {
  return {
    identity,
    shown: identity.kind !== 'anonymous',
    may: (action, name) => decide(identity, grants, action, name).allowed,
    repositoryId: () => undefined,
    mayList: true,
  }
}
