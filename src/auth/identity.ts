/** What a grant can allow. `admin` is the right to manage access to what the pattern names, and implies the others. */
export const ACTIONS = ['pull', 'push', 'delete', 'admin'] as const

/** One of {@link ACTIONS}. */
export type Action = (typeof ACTIONS)[number]

/** Actions on the repositories that a pattern names: what a grant gives, and what a token's scope narrows to. */
export interface PatternActions {
  /** A repository name in which `*` stands for one path component (or a part of one) and `**` for any number. */
  readonly pattern: string
  readonly actions: readonly Action[]
}

/** Where a CI job comes from, as its identity token says: kept with the manifests it pushes. */
export type Provenance = Readonly<Record<string, string>>

/**
 * Who asks, once that is proven. `anonymous` showed nothing; `local` came over the administrator's socket; `foreign`
 * was named by an issuer of tokens that we trust and has no row here.
 */
export interface Identity {
  readonly kind: 'anonymous' | 'user' | 'robot' | 'ci' | 'foreign' | 'local'
  /** For people and logs; empty for anonymous. Authorisation goes by {@link principalId}. */
  readonly name: string
  readonly principalId?: number
  /** The principal's epoch when it was proven: a token of an earlier epoch is dead. */
  readonly epoch?: number
  /** Which secret was shown, a personal token's or a robot's, where one was: what came of it ends with it. */
  readonly secretId?: number
  /** When what was shown ends; what is issued for it ends no later. Absent where it does not end by itself. */
  readonly endsAt?: Date
  /** What the shown token narrows its principal to; absent where it narrows nothing. */
  readonly scopes?: readonly PatternActions[]
  readonly provenance?: Provenance
}

/** Who asks when nothing was shown. */
export const ANONYMOUS: Identity = { kind: 'anonymous', name: '' }

/** What the command line and grants call everyone. */
const RESERVED = new Set(['everyone', 'everyone-logged-in', 'anonymous'])

/** Whether a name means everyone or nobody, however it is written: no user may be confused with them. */
export function isReserved(name: string): boolean {
  return RESERVED.has(name.toLowerCase())
}
