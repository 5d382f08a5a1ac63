import type { Action } from './identity.ts'

/** What a token gives access to, as Distribution's tokens say it. */
export interface AccessEntry {
  readonly type: string
  readonly name: string
  readonly actions: readonly string[]
  /** The repository's id when the token was made: a deleted and re-created repository has another. */
  readonly repository?: number
}

/** A scope as a client asks for it. */
export interface Scope {
  readonly type: string
  readonly name: string
  readonly actions: readonly string[]
}

/** Scopes of one request beyond this are not looked at. */
const MAX_SCOPES = 100
const MAX_SCOPE_LENGTH = 1_000

/**
 * The scopes in the `scope` values of a token request. Each value may hold several, separated by spaces; a name may
 * hold colons, so the type ends at the first and the actions begin after the last. What is malformed is left out:
 * a client that asks for more than we know must still get what we do know.
 */
export function parseScopes(values: readonly string[]): Scope[] {
  const byResource = new Map<string, { type: string; name: string; actions: Set<string> }>()
  const texts = values.flatMap(value => value.split(' ')).filter(text => text !== '')
  for (const text of texts.slice(0, MAX_SCOPES)) {
    const scope = parseScope(text)
    if (scope === undefined) continue
    const key = `${scope.type}:${scope.name}`
    const known = byResource.get(key)
    if (known === undefined) byResource.set(key, { ...scope, actions: new Set(scope.actions) })
    else for (const action of scope.actions) known.actions.add(action)
  }
  return [...byResource.values()].map(scope => ({ ...scope, actions: [...scope.actions] }))
}

function parseScope(text: string): Scope | undefined {
  const first = text.indexOf(':')
  const last = text.lastIndexOf(':')
  if (text.length > MAX_SCOPE_LENGTH || first <= 0 || last === first) return undefined
  // `repository(plugin)` is the same resource as `repository`.
  const type = text.slice(0, first).replace(/\([a-z0-9]*\)$/, '')
  const name = text.slice(first + 1, last)
  const actions = text
    .slice(last + 1)
    .split(',')
    .filter(action => action !== '')
  return name === '' ? undefined : { type, name, actions }
}

/** A scope as a challenge or a token says it. */
export function scopeText(scope: Scope): string {
  return `${scope.type}:${scope.name}:${scope.actions.join(',')}`
}

/** The repository actions a scope asks for; `*` asks for all that a client can use. */
export function repositoryActions(scope: Scope): Action[] {
  const all: Action[] = ['pull', 'push', 'delete']
  return scope.actions.includes('*') ? all : all.filter(action => scope.actions.includes(action))
}
