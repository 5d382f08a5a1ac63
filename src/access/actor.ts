import type { RequestSource } from '../auth/authority.ts'
import type { Identity, PatternActions } from '../auth/identity.ts'
import { mayAdminister } from '../auth/policy.ts'
import { findSecretStates } from '../metadata/access-tokens.ts'
import { type NewAudit, insertAudit } from '../metadata/audit.ts'
import type { Database, Queryable, Transaction } from '../metadata/database.ts'
import type { WorkName } from '../metadata/maintenance.ts'
import { findPrincipals } from '../metadata/principals.ts'
import { RegistryError } from '../oci/errors.ts'
import { grantsFor } from './grants.ts'

/** Who administers, and from where. */
export interface Actor {
  readonly identity: Identity
  readonly source: RequestSource
}

/** What administration may ask of the stores, which it does not know. */
export interface StorageControl {
  /** Names of the stores that are configured; the first takes new content. */
  readonly names: readonly string[]
  /** Whose a store is, or `unknown` where it does not answer. */
  ownership(store: string): Promise<StoreOwnership>
  /** Makes every store that is configured this registry's. @throws StoreUnavailable */
  adopt(): Promise<void>
}

/** Whose a store is, as `gc/store-owner.ts` tells it. */
export type StoreOwnership = 'ours' | 'settling' | 'unclaimed' | 'foreign' | 'contested' | 'unknown'

/** Background work that somebody can ask for, by the name of its job. */
export type RequestedWork = WorkName | 'retain' | 'move content'

/** A mirror at work in this process. */
export interface MirrorView {
  readonly prefix: string
  /** Where it was set up: in the settings of this process, or by the API. */
  readonly source: 'settings' | 'api'
  readonly url: string
  /** Who fetches; null: nobody in particular. */
  readonly username: string | null
  readonly allow: readonly string[]
  readonly deny: readonly string[]
  readonly tagTtlSeconds: number
  readonly tagTtls: readonly { readonly tags: string; readonly ttlSeconds: number }[]
  readonly offline: boolean
  readonly keepDeletedTags: boolean
  readonly namespaces: readonly string[]
  readonly hosts: readonly string[]
  readonly trustedHosts: readonly string[]
  readonly allowPrivate: boolean
  readonly maxBytes: number | null
  readonly bytesPerSecond: number | null
  /** Why the upstream is left alone for now; null: it is asked. */
  readonly leftAlone: string | null
}

/** One thing that was tried at an upstream, and what came of it. */
export interface MirrorTestStep {
  readonly step: string
  readonly ok: boolean
  readonly message: string
}

/** What administration may ask of the mirrors at work, which it does not know. */
export interface MirrorControl {
  /** The mirrors that there are now, by prefix. */
  list(): Promise<readonly MirrorView[]>
  /** Counts of this process are written where all add up. */
  flush(): Promise<void>
  /** Asks a mirror's upstream; undefined where there is no such mirror. */
  test(prefix: string, repository: string | undefined): Promise<readonly MirrorTestStep[] | undefined>
}

/** A sync as it is set: see `syncs.ts`. */
export interface SyncSetting {
  readonly name: string
  readonly direction: 'pull' | 'push'
  /** Of the other registry; credentials are no part of it. */
  readonly url: string
  /** Names and patterns at the source. */
  readonly repositories: readonly string[]
  /** Five fields of cron; null: it runs when somebody says so. */
  readonly schedule: string | null
  readonly timeZone: string
}

/** What the use cases of administration work with. */
export interface AdministrationContext {
  readonly db: Database
  /** Whether nobody has to log in: then grants are kept for the day when they have to. */
  readonly isOpen: boolean
  /**
   * Judges a user's current password, like a login and under the same limits.
   * @throws RegistryError UNAUTHORIZED, TOOMANYREQUESTS, UNAVAILABLE.
   */
  readonly confirmPassword: (
    shown: { readonly name: string; readonly password: string },
    source: RequestSource,
  ) => Promise<void>
  /** Told of a principal that this process changed, so that it takes effect here at once. */
  readonly onPrincipalChanged: (principalId: number) => void
  /** Told when the set of signing keys was changed here. */
  readonly onKeysChanged: () => void
  /** Where bytes lie. */
  readonly storage: StorageControl
  readonly mirrors: MirrorControl
  /** Told of work that was asked for, so that this process begins it at once. */
  readonly onWorkRequested: (work: RequestedWork) => void
  /** The syncs of the settings. */
  readonly syncs: readonly SyncSetting[]
  /** How signing keys live; in milliseconds. */
  readonly keyLifetimes: { readonly rotationMs: number; readonly longestTokenMs: number }
}

/** The pattern whose administrators administer the registry itself. */
export const EVERYTHING = '**'

/**
 * Makes sure that what an actor showed still proves who that is: it was shown before the request's body came, which may
 * have been long ago. @throws RegistryError UNAUTHORIZED.
 */
export async function requireStillProven(db: Queryable, { principalId, epoch, secretId }: Identity): Promise<void> {
  if (principalId === undefined) return
  const [principal] = await findPrincipals(db, [principalId])
  const isSame = principal?.active === true && (epoch === undefined || principal.epoch === epoch)
  if (isSame && (secretId === undefined || (await findSecretStates(db, [secretId])).some(({ active }) => active)))
    return
  throw new RegistryError('UNAUTHORIZED', { message: 'what was shown is not valid any more: log in again' })
}

/**
 * Makes sure that an actor administers everything that each of `patterns` names; without any, the registry itself.
 * @throws RegistryError DENIED.
 */
export async function requireAdmin(db: Queryable, actor: Actor, patterns: readonly string[] = []): Promise<void> {
  const { identity } = actor
  await requireStillProven(db, identity)
  const grants = await grantsFor(db, identity)
  const needed = patterns.length === 0 ? [EVERYTHING] : patterns
  const beyond = needed.find(pattern => !mayAdminister(identity, grants, pattern))
  if (beyond !== undefined) throw notAdmin(identity, beyond)
}

/**
 * Runs a change by who administers everything that each of `patterns` names; without any, the registry itself. Rights are
 * looked at in the transaction that uses them, and stay as they are to its end. @throws RegistryError DENIED.
 */
export async function asAdmin<T>(
  db: Database,
  actor: Actor,
  patterns: readonly string[],
  change: (tx: Transaction) => Promise<T>,
): Promise<T> {
  return await db.transaction(async tx => {
    await lockAdministrators(tx)
    await requireAdmin(tx, actor, patterns)
    return await change(tx)
  })
}

/**
 * What an actor administers, for lists that show him his own.
 * @throws RegistryError DENIED for who administers nothing at all.
 */
export async function administeredBy(db: Queryable, actor: Actor): Promise<Administered> {
  const { identity } = actor
  await requireStillProven(db, identity)
  const grants = await grantsFor(db, identity)
  const isAdmin = (entries: readonly PatternActions[] | undefined): boolean =>
    entries?.some(({ actions }) => actions.includes('admin')) ?? true
  if (identity.kind !== 'local' && !(isAdmin(grants) && isAdmin(identity.scopes))) throw notAdmin(identity, EVERYTHING)
  return patterns =>
    (patterns.length === 0 ? [EVERYTHING] : patterns).every(pattern => mayAdminister(identity, grants, pattern))
}

/** Whether all of these patterns lie within what an actor administers; what has none is of the whole registry. */
export type Administered = (patterns: readonly string[]) => boolean

function notAdmin(identity: Identity, pattern: string): RegistryError {
  return new RegistryError('DENIED', {
    message:
      identity.scopes === undefined
        ? `this needs a grant of admin on ${pattern}`
        : `this needs a token scoped to admin on ${pattern}, and a grant of it`,
  })
}

/** @throws RegistryError DENIED for a session by a token that is narrower than its owner: it must not make a wider one. */
export function requireUnscoped(actor: Actor): void {
  if (actor.identity.scopes === undefined) return
  throw new RegistryError('DENIED', { message: 'a token with scopes cannot manage tokens: log in with the password' })
}

/**
 * @throws RegistryError DENIED for a session by a personal token: a secret that it makes would be one more for the same
 * user, and not end where it is taken back.
 */
export function requireOwnLogin(actor: Actor): void {
  const { kind, secretId } = actor.identity
  if (kind !== 'user' || secretId === undefined) return
  throw new RegistryError('DENIED', {
    message: 'a personal token cannot make tokens or secrets: log in with the password',
  })
}

/** Records what an actor changed, in the change's own transaction. */
export async function record(
  tx: Transaction,
  actor: Actor,
  kind: string,
  detail: Readonly<Record<string, unknown>>,
): Promise<void> {
  await insertAudit(tx, [auditEntry(actor, kind, 'ok', detail)])
}

/** An entry of the audit about what an actor did or was refused. */
export function auditEntry(
  { identity, source }: Actor,
  kind: string,
  outcome: NewAudit['outcome'],
  detail: NewAudit['detail'],
): NewAudit {
  return {
    kind,
    outcome,
    actor: identity.name,
    ...(identity.principalId === undefined ? {} : { actorId: identity.principalId }),
    client: source.client,
    requestId: source.requestId,
    detail,
  }
}

/**
 * Runs a change to who may what, one at a time across processes, and makes sure that it does not take the last
 * administrator away.
 * @throws RegistryError CONFLICT where an active user administered everything before the change, and none does after it.
 */
export async function keepingAdministrator<T>(tx: Transaction, change: () => Promise<T>): Promise<T> {
  await lockAdministrators(tx)
  const had = await hasAdministrator(tx)
  const outcome = await change()
  if (had && !(await hasAdministrator(tx))) {
    throw new RegistryError('CONFLICT', {
      message: `this would leave nobody who administers the registry: grant admin on ${EVERYTHING} to another user first`,
    })
  }
  return outcome
}

/** Makes changes to who may what wait for each other, to the end of the transaction. */
export async function lockAdministrators(tx: Transaction): Promise<void> {
  await tx.query("select pg_advisory_xact_lock(hashtextextended('administrators', 0))")
}

/** Whether there is an active user of our own who administers everything: those of a file can vanish with it. */
export async function hasAdministrator(db: Queryable): Promise<boolean> {
  const rows = await db.query(
    `select p.id from principal p
      where p.kind = 'user' and p.external_issuer is null and p.disabled_at is null
        and coalesce(p.expires_at > clock_timestamp(), true)
        and exists (select from access_grant g
                     where g.pattern = $1 and 'admin' = any(g.actions)
                       and (g.principal_id = p.id
                            or g.group_id in (select m.group_id from group_member m where m.principal_id = p.id)))
      limit 1`,
    [EVERYTHING],
  )
  return rows.length > 0
}

/** The patterns of grants or scopes. */
export function patternsOf(entries: readonly PatternActions[]): string[] {
  return entries.map(entry => entry.pattern)
}
