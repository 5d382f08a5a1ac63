import type { Database } from '../metadata/database.ts'
import { insertEvents } from '../metadata/events.ts'
import { postponeReturnableLinks, postponeReturnableManifests } from '../metadata/returnable.ts'
import * as rows from '../metadata/sweep.ts'

/** How the collector works. Durations in milliseconds. */
export interface SweepOptions {
  /** Rows of one transaction at most; what it locks is held for no longer than that takes. */
  readonly batch: number
  /** What was un-rooted by a removal stays at least this long: a promise may have been made about it. */
  readonly leaseMs: number
  /** How long bytes that nothing names stay in the trash. */
  readonly trashGraceMs: number
}

/** What a sweep did. `looked` counts rows whose lease had ended, `bytes` those that went to the trash. */
export interface SweepResult {
  readonly looked: number
  readonly manifests: number
  readonly links: number
  readonly blobs: number
  readonly bytes: number
}

/** A manifest that cannot go now, because something it names is being changed, is looked at again after this. */
const POSTPONE_MS = 10_000
/** What is in a repository that can come back is looked at this rarely: its drain takes it in the end. */
const RETURNABLE_MS = 86_400_000

const NOTHING: SweepResult = { looked: 0, manifests: 0, links: 0, blobs: 0, bytes: 0 }

/**
 * Collects what nothing keeps and nobody was promised, in batches, until a round finds nothing new: manifests, then
 * links, then blobs. Passes over deleted repositories until their drain begins. Safe while pushes go on, and in any number of processes at once. `onBatch` runs after every batch
 * that found something, and may slow the sweep down or end it by throwing.
 */
export async function sweep(
  db: Database,
  options: SweepOptions,
  onBatch: (batch: SweepResult) => Promise<void>,
): Promise<SweepResult> {
  let total = NOTHING
  for (const step of [sweepManifests, sweepLinks, sweepBlobs]) {
    for (;;) {
      const found = await step(db, options)
      if (found.looked === 0) break
      total = add(total, found)
      await onBatch(found)
      // Whatever was looked at is gone, kept or postponed, so each round finds other rows.
      if (found.looked < options.batch) break
    }
  }
  return total
}

/** One batch of manifests whose lease has ended. */
export async function sweepManifests(db: Database, options: SweepOptions): Promise<SweepResult> {
  return await db.transaction(async tx => {
    const expired = await rows.lockExpiredManifests(tx, options.batch)
    if (expired.length === 0) return NOTHING
    const ids = (await postponeReturnableManifests(tx, expired, RETURNABLE_MS)).map(({ id }) => id)
    const unrooted = new Set(await rows.findUnrooted(tx, ids))
    await rows.keepManifests(
      tx,
      ids.filter(id => !unrooted.has(id)),
    )
    const held = await rows.releaseDependants(tx, [...unrooted], options.leaseMs)
    await rows.postponeManifests(tx, [...held], POSTPONE_MS)
    const gone = await rows.deleteManifests(
      tx,
      [...unrooted].filter(id => !held.has(id)),
    )
    await insertEvents(
      tx,
      gone.map(({ repository, digest }) => ({ kind: 'manifest.expire', repository, detail: { digest } })),
    )
    return { ...NOTHING, looked: expired.length, manifests: gone.length }
  })
}

/** One batch of links whose lease has ended. */
export async function sweepLinks(db: Database, options: SweepOptions): Promise<SweepResult> {
  return await db.transaction(async tx => {
    const expired = await rows.lockExpiredLinks(tx, options.batch)
    if (expired.length === 0) return NOTHING
    const links = await postponeReturnableLinks(tx, expired, RETURNABLE_MS)
    const kept = await rows.keepNamedLinks(tx, links)
    await rows.markUnlinked(tx, await rows.deleteLinks(tx, links))
    return { ...NOTHING, looked: expired.length, links: links.length - kept }
  })
}

/** One batch of blobs that lost a link. */
export async function sweepBlobs(db: Database, options: SweepOptions): Promise<SweepResult> {
  return await db.transaction(async tx => {
    const { looked, ids } = await rows.lockUnlinkedBlobs(tx, options.batch)
    if (ids.length === 0) return { ...NOTHING, looked }
    const { blobs, bytes } = await rows.trashBlobs(tx, ids, options.trashGraceMs)
    return { ...NOTHING, looked, blobs, bytes }
  })
}

function add(a: SweepResult, b: SweepResult): SweepResult {
  return {
    looked: a.looked + b.looked,
    manifests: a.manifests + b.manifests,
    links: a.links + b.links,
    blobs: a.blobs + b.blobs,
    bytes: a.bytes + b.bytes,
  }
}
