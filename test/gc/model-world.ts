import { type RepositoryName, type Tag, parseName, parseReference } from '../../src/oci/name.ts'
import type { SweepOptions } from '../../src/gc/sweep.ts'
import type { Database } from '../../src/metadata/database.ts'
import type { Digest } from '../../src/oci/digest.ts'
import type { Registry } from '../../src/registry/registry.ts'
import type { BlobStore } from '../../src/storage/blob-store.ts'

export const GRACE_MS = 300

/** How long things live in the model, in milliseconds. */
export interface Times {
  readonly leaseMs: number
  /** What the registry promises to a pusher who is told that something is there. */
  readonly promiseMs: number
  readonly uploadExpiryMs: number
}

/** The times of a model whose leases are cut to `leaseMs`, so that a run sees thousands of them end. */
export function timesFor(leaseMs: number): Times {
  return { leaseMs, promiseMs: leaseMs / 2, uploadExpiryMs: Math.round(leaseMs * 0.4) }
}

export const REPOSITORIES = ['race/a', 'race/b', 'race/c'].map(parseName)
const TAGS = 12
export const TAG_NAMES = Array.from({ length: TAGS }, (_, index) => tagOf(`t${index}`))

function tagOf(text: string): Tag {
  const { tag } = parseReference(text)
  if (tag === undefined) throw new Error(`${text} is no tag`)
  return tag
}

/** One collection of everything that is due; the real one, or a broken one that the model must catch. */
export type Sweep = (db: Database, options: SweepOptions) => Promise<{ readonly blobs: number }>

/** What one process of the model works with. */
export interface ModelOptions {
  readonly db: Database
  /** Refuses a manifest or index that names what is not there. */
  readonly registry: Registry
  /** Takes it all the same, as a mirror does, whose content comes in any order. */
  readonly lax: Registry
  readonly store: BlobStore
  readonly sweep: Sweep
  readonly times: Times
  readonly seed: number
  readonly pushers: number
  readonly deleters: number
  readonly pullers: number
  readonly collectors: number
  readonly signal: AbortSignal
  /** Told after every sweep how it stands. */
  readonly onProgress: (progress: Progress) => void
  /** Whether the index may go away for a while: what fails because of that is counted and no violation. */
  readonly outages: boolean
}

/**
 * `late`: pushes refused because the client was slower than its lease. `expired`: uploads that ended because the client
 * was slower than they live. `outages`: turns that failed because the index was away.
 */
export const COUNTED = [
  'pushes',
  'late',
  'mounts',
  'skips',
  'indexes',
  'referrers',
  'moves',
  'uploads',
  'expired',
  'deletes',
  'pulls',
  'collected',
  'outages',
] as const

/** What was done, by kind. */
export type Counts = Record<(typeof COUNTED)[number], number>

/** How one process of the model stands: what it did, and how many things it saw that must never happen. */
export type Progress = Counts & { readonly faults: number }

/** What one process of the model did and saw. */
export interface ModelResult extends Counts {
  /** What must never happen, in words. */
  violations: string[]
}

/** A signature or the like that a push was acknowledged for. */
export interface Referrer {
  readonly name: RepositoryName
  readonly subject: Digest
  readonly digest: Digest
}

/** What the actors of one process share. */
export interface Scene extends ModelOptions {
  readonly result: ModelResult
  /** Referrers whose subject was there when they were looked at last. */
  readonly referrers: Referrer[]
}

/** Every tag the model uses. */
export function everyTag(): { readonly name: RepositoryName; readonly tag: Tag }[] {
  return REPOSITORIES.flatMap(name => TAG_NAMES.map(tag => ({ name, tag })))
}
