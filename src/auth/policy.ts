import type { Action, Identity, PatternActions } from './identity.ts'
import { covers, matchesPattern } from '../oci/repository-pattern.ts'

/** Actions on a pattern of repositories, as given to a subject. */
export interface Grant extends PatternActions {
  readonly id: number
  /** To whom it was given. */
  readonly subject: 'principal' | 'group' | 'authenticated' | 'anonymous'
  /** The principal's or group's name, where there is one. */
  readonly subjectName?: string
}

/** Whether an action is allowed, and why. */
export interface Decision {
  readonly allowed: boolean
  /** The grant that decided; absent where none allows it, or where no grant was needed. */
  readonly grant?: Grant
  /** One sentence for a person. */
  readonly reason: string
}

/** Whether `has` includes the right to do `action`: `admin` includes everything, `push` includes `pull`. */
export function implies(has: readonly Action[], action: Action): boolean {
  return has.includes(action) || has.includes('admin') || (action === 'pull' && has.includes('push'))
}

/**
 * Whether `identity` may do `action` on the repository `name`, given every grant that applies to it. Pure. What is not
 * granted is refused; the shown token can narrow what was granted and never widens it.
 */
export function decide(identity: Identity, grants: readonly Grant[], action: Action, name: string): Decision {
  if (identity.kind === 'local') return { allowed: true, reason: 'the local administrator may do everything' }
  const decision = decideFor(subjectText(identity), grants, action, name)
  if (decision.allowed && !isInScopes(identity, action, name)) {
    return { ...decision, allowed: false, reason: `the token that was shown is not scoped to ${action} on ${name}` }
  }
  return decision
}

/** Whether one of `grants` allows `action` on the repository `name`. `who` is whom they apply to, for people. Pure. */
export function decideFor(who: string, grants: readonly Grant[], action: Action, name: string): Decision {
  const grant = grants.find(candidate => matchesPattern(candidate.pattern, name) && implies(candidate.actions, action))
  return grant === undefined
    ? { allowed: false, reason: `no grant to ${who} allows ${action} on ${name}` }
    : { allowed: true, grant, reason: `grant ${grant.id} (${grantText(grant)}) allows it` }
}

/** Whether `identity` may manage access to everything `pattern` names. Pure. */
export function mayAdminister(identity: Identity, grants: readonly Grant[], pattern: string): boolean {
  if (identity.kind === 'local') return true
  const within = (entry: PatternActions): boolean => entry.actions.includes('admin') && covers(entry.pattern, pattern)
  return grants.some(within) && (identity.scopes === undefined || identity.scopes.some(within))
}

function isInScopes(identity: Identity, action: Action, name: string): boolean {
  const { scopes } = identity
  if (scopes === undefined) return true
  return scopes.some(scope => matchesPattern(scope.pattern, name) && implies(scope.actions, action))
}

function subjectText(identity: Identity): string {
  return identity.kind === 'anonymous' ? 'everyone' : `${identity.kind} ${identity.name}`
}

/** A grant in words: `push on team-a/** to group builders`. */
export function grantText(grant: Grant): string {
  const to = {
    principal: grant.subjectName ?? '',
    group: `group ${grant.subjectName ?? ''}`,
    authenticated: 'everyone who logged in',
    anonymous: 'everyone',
  }[grant.subject]
  return `${grant.actions.join(', ')} on ${grant.pattern} to ${to}`
}
