import type { Authority } from '../auth/authority.ts'
import { pruneAudit } from '../metadata/audit.ts'
import type { Database } from '../metadata/database.ts'
import { pruneExpiredTokens } from '../metadata/refresh-tokens.ts'
import type { AdministrationContext } from './actor.ts'
import { AuditTrail } from './audit-trail.ts'
import type { Authenticator } from './authenticator.ts'
import { RowAuthority } from './authority.ts'
import type { ForeignTokens } from './bearer-tokens.ts'
import { ciAuthenticator } from './ci-login.ts'
import { ensureFirstAdmin } from './first-admin.ts'
import { GuessLimit, type GuessLimitOptions, passwordGuess } from './guess-limit.ts'
import { createIssuerFetch } from './issuer-fetch.ts'
import { type IssuerDown, IssuerKeys, discovery } from './issuer-keys.ts'
import { type KeyLifetimes, Keys, rotateKeysWhenDue } from './keys.ts'
import { Login } from './login.ts'
import { secretAuthenticator, userAuthenticator } from './password-login.ts'
import { PrincipalStates } from './principal-states.ts'
import { UseTimes } from './use-times.ts'

/** How access control works; durations in milliseconds. */
export interface AccessOptions {
  readonly db: Database
  readonly service: string
  readonly tokenLifetimeMs: number
  readonly uploadExpiryMs: number
  readonly revocationMaxAgeMs: number
  readonly keyLifetimes: KeyLifetimes
  readonly auditRetentionMs: number
  /** The first administrator's password; without it one is generated. */
  readonly adminPassword: string | undefined
  /** Further ways to prove who one is, asked after tokens and before passwords of ours. */
  readonly authenticators: readonly Authenticator[]
  readonly foreign: ForeignTokens
  /** Whether issuers of CI identities may be asked over plain HTTP and at private addresses. */
  readonly allowPrivateIssuers: boolean
  readonly guesses: GuessLimitOptions
  readonly onError: (error: unknown) => void
  /** Told when the issuer of CI identities cannot be asked for its keys. */
  readonly onIssuerDown?: IssuerDown
  /** Milliseconds since 1970. */
  readonly now?: () => number
}

/** Access control at work. */
export interface OpenAccess {
  readonly authority: Authority
  readonly keys: Keys
  readonly states: PrincipalStates
  /** Whether this is a user's password of ours, and no token in its place; judged and limited like a login. */
  readonly confirmPassword: AdministrationContext['confirmPassword']
  /** The first administrator's password, where this start made one; it is shown once and kept nowhere. */
  readonly generatedPassword: string | undefined
  /** Whether no active user administers the registry: only its own machine can mend that. */
  readonly nobodyAdministers: boolean
  /** Rotates keys when they are due. */
  rotateKeys(): Promise<void>
  /** Removes what is too old: audit entries, expired refresh tokens. */
  prune(): Promise<void>
  /** Writes what has not been written yet. */
  close(): Promise<void>
}

const PRUNE_BATCH = 1_000

/** Prepares keys and the first administrator, and puts the authority together. */
export async function openAccess(options: AccessOptions): Promise<OpenAccess> {
  const { db, keyLifetimes, onError } = options
  await rotateKeysWhenDue(db, keyLifetimes)
  const { generatedPassword, nobodyAdministers } = await ensureFirstAdmin(db, options.adminPassword)
  const keys = new Keys(db)
  const states = new PrincipalStates(db, options.revocationMaxAgeMs)
  const audit = new AuditTrail(db, onError)
  const useTimes = new UseTimes(db, onError)
  const now = options.now ?? Date.now
  const fetch = createIssuerFetch({ allowPrivate: options.allowPrivateIssuers })
  const issuers = new IssuerKeys(discovery(fetch), now, options.onIssuerDown)
  const guesses = new GuessLimit(options.guesses)
  const users = userAuthenticator(db)
  const passwords = new Login([users], guesses, audit, passwordGuess)
  const chain = [secretAuthenticator(db), ciAuthenticator(db, issuers, now), ...options.authenticators, users]
  const authority = new RowAuthority({
    db,
    keys,
    states,
    login: new Login(chain, guesses, audit),
    guesses,
    audit,
    useTimes,
    foreign: options.foreign,
    service: options.service,
    tokenLifetimeMs: options.tokenLifetimeMs,
    uploadExpiryMs: options.uploadExpiryMs,
    now,
  })
  return {
    authority,
    keys,
    states,
    async confirmPassword(shown, source) {
      await passwords.prove(shown, source)
    },
    generatedPassword,
    nobodyAdministers,
    async rotateKeys() {
      if (await rotateKeysWhenDue(db, keyLifetimes)) keys.refresh()
    },
    async prune() {
      while ((await db.transaction(tx => pruneAudit(tx, options.auditRetentionMs, PRUNE_BATCH))) === PRUNE_BATCH);
      while ((await db.transaction(tx => pruneExpiredTokens(tx, PRUNE_BATCH))) >= PRUNE_BATCH);
    },
    async close() {
      await audit.flush()
      await useTimes.flush()
    },
  }
}
