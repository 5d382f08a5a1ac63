import { RegistryError } from '../oci/errors.ts'
import type { Database } from '../metadata/database.ts'
import type { Stores } from '../storage/stores.ts'
import type { PullCounts } from './pull-counts.ts'

/** How long the rules let things live, all in milliseconds. */
export interface Lifetimes {
  /** L: how long what was reported present to a pusher stays; a positive answer promises at least half of it. */
  readonly leaseMs: number
  /** U: how long content that lost its last root stays pullable by digest; never below {@link leaseMs}. */
  readonly untaggedRetentionMs: number
  /** How long what was deleted can be brought back; never below {@link leaseMs}. */
  readonly deleteGraceMs: number
  /** How long an upload session that nobody writes to lives. */
  readonly uploadExpiryMs: number
  /** How long bytes that no row names stay before they are purged. */
  readonly trashGraceMs: number
}

/** What every use case works with. */
export interface RegistryContext {
  readonly db: Database
  /** Where bytes lie: rows name the store, new content goes to the first. */
  readonly stores: Stores
  readonly lifetimes: Lifetimes
  /** Counts what is pulled; absent where nobody wants to know. */
  readonly pulls?: PullCounts
  /** Whether a manifest that names a blob which is absent is refused. */
  readonly requireBlobs: boolean
  /** Whether an index that names a manifest which is absent is refused. */
  readonly requireChildren: boolean
  /** Whether a manifest that a visible index names may be deleted. */
  readonly allowChildDelete: boolean
}

/**
 * What a positive answer to someone who may push is worth, in milliseconds: half a lease, also where the row it rests on
 * is read `maxAgeMs` before the answer.
 */
export function promiseOf({ leaseMs }: Lifetimes): { readonly enoughMs: number; readonly maxAgeMs: number } {
  const maxAgeMs = leaseMs / 100
  return { enoughMs: leaseMs / 2 + maxAgeMs, maxAgeMs }
}

/** Who asks, as far as the rules care. */
export interface Caller {
  /** A positive answer to someone who may push is a promise: the client skips the upload because of it. */
  readonly mayPush: boolean
  /** Recorded with what the caller changes. */
  readonly principal?: string
  /** Rules of tags name their writers by it. */
  readonly principalId?: number
  /** A mirror, which writes what its upstream says: rules about who may push do not concern it. */
  readonly isMirror?: boolean
  /** Which commit and run it comes from, where a CI job asks; kept with the manifests it pushes. */
  readonly provenance?: Readonly<Record<string, string>>
  /** The repository that the caller's token was issued for: one that was deleted and made again is another. */
  readonly repositoryId?: number
}

/** Who administers content, and from where: it is audited. */
export interface AdminCaller extends Caller {
  readonly principal: string
  readonly client: string
  readonly requestId: string
}

/** Which repositories a caller may see: regular expressions, of which one of each list matches the name. */
export type VisibleNames = readonly (readonly string[])[]

/**
 * Refuses a caller whose token was issued for another repository of the same name.
 * @throws RegistryError UNAUTHORIZED.
 */
export function checkBinding(caller: Caller, repositoryId: number): void {
  if (caller.repositoryId === undefined || caller.repositoryId === repositoryId) return
  throw new RegistryError('UNAUTHORIZED', {
    message: 'the token was issued for a repository that has been deleted since',
  })
}
