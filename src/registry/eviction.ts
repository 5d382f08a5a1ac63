import { randomUUID } from 'node:crypto'
import type { Digest } from '../oci/digest.ts'
import { RegistryError } from '../oci/errors.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Transaction } from '../metadata/database.ts'
import { insertEvent } from '../metadata/events.ts'
import * as rows from '../metadata/eviction.ts'
import * as manifests from '../metadata/manifests.ts'
import { mirrorUsage } from '../metadata/mirror-figures.ts'
import { holdMirror } from '../metadata/mirrors.ts'
import { holdExistingRepository } from '../metadata/repositories.ts'
import { deleteManifests, releaseDependants } from '../metadata/sweep.ts'
import { removeTagsOf, tagsOf } from '../metadata/tags.ts'
import { NO_USAGE, insertReleases, insertUsage } from '../metadata/usage.ts'
import type { RegistryContext } from './context.ts'
import { type TagGuard, openTagGuard } from './tag-guard.ts'
import { keptMs } from './tags.ts'
import { settleUsage } from './usage.ts'

/** A mirror whose copies may not take more than `maxBytes` together, each blob counted once. */
export interface BoundedMirror {
  readonly prefix: string
  readonly maxBytes: number
  /** Whether it has a row, and may be removed meanwhile. */
  readonly isRemovable: boolean
}

/** How room is made. */
export interface EvictionOptions {
  /** What was used within this time stays, in milliseconds. */
  readonly spareMs: number
  readonly signal: AbortSignal
}

/** What was evicted: manifests and single blobs, and the bytes that the mirror has less. */
export interface Evicted {
  readonly evicted: number
  readonly bytes: number
  /** What the mirror takes now, where that was measured. */
  readonly measuredBytes?: number
  /** Whether it takes more than it may all the same: everything else was used too lately. */
  readonly isFull: boolean
}

/** A process that is silent for so long has lost the work. */
const LEASE_MS = 120_000
/** Eviction goes on below the limit, so that not every new blob begins it again. */
const TARGET_SHARE = 0.9
const BATCH = 50
/** What is not measured is reckoned from what was; after this the error may have grown. */
const MEASURE_AGAIN_MS = 60 * 60_000

/** The mirror was removed meanwhile: what it holds is its own now. */
class MirrorGone extends Error {
  override readonly name = 'MirrorGone'
}

const NOTHING: Evicted = { evicted: 0, bytes: 0, isFull: false }

/**
 * Makes room in a mirror that takes more than it may: what was not used for longest goes first, a manifest with its tags,
 * its referrers and the blobs that nothing else names. One process at a time. Costs a look at a counter for each of its
 * repositories; only where those say that there may be too much its content is measured, and then again when so much
 * came as may be missing.
 */
export async function evict(
  context: RegistryContext,
  mirror: BoundedMirror,
  { spareMs, signal }: EvictionOptions,
): Promise<Evicted> {
  const { db } = context
  const { prefix, maxBytes } = mirror
  const { logical_bytes: logicalBytes } = await mirrorUsage(db, prefix)
  if (logicalBytes <= maxBytes) return NOTHING
  const holder = randomUUID()
  const last = await db.transaction(tx => rows.takeEviction(tx, prefix, holder, LEASE_MS))
  if (last === undefined) return NOTHING
  try {
    if (atMost(last, logicalBytes) <= maxBytes) return NOTHING
    let bytes = await rows.measureCopies(db, prefix)
    const keep = async (reckoned: number | null): Promise<void> => {
      signal.throwIfAborted()
      const size = { bytes, logicalBytes: reckoned }
      const isOurs = await db.transaction(tx => rows.keepEviction(tx, prefix, holder, LEASE_MS, size))
      if (!isOurs) throw new Error(`another process makes room in ${prefix}`)
    }
    await keep(logicalBytes)
    if (bytes <= maxBytes) return { ...NOTHING, measuredBytes: bytes }
    await db.transaction(tx => rows.findUnnoted(tx, prefix))
    const before = bytes
    let evicted = 0
    while (bytes > maxBytes * TARGET_SHARE) {
      const found = await rows.findEvictable(db, prefix, spareMs, BATCH)
      for (const copy of found) {
        if (bytes <= maxBytes * TARGET_SHARE) break
        const freed = await evictOne(context, mirror, copy, spareMs)
        if (freed === undefined) continue
        evicted += 1
        bytes -= freed
      }
      // What comes meanwhile is in no figure: the next turn measures again.
      await keep(null)
      if (found.length === 0) break
    }
    return { evicted, bytes: before - bytes, measuredBytes: bytes, isFull: bytes > maxBytes }
  } catch (error) {
    if (error instanceof MirrorGone) return NOTHING
    throw error
  } finally {
    await db.transaction(tx => rows.releaseEviction(tx, prefix, holder))
  }
}

/** What the copies take at most: nothing makes them more than what came since. */
function atMost({ bytes, logical_bytes: before, age_ms: age }: rows.MirrorSize, logicalBytes: number): number {
  if (bytes === null || before === null || age === null || age > MEASURE_AGAIN_MS) return Infinity
  return bytes + Math.max(0, logicalBytes - before)
}

/** The bytes that the mirror has less; undefined where nothing went. */
async function evictOne(
  context: RegistryContext,
  mirror: BoundedMirror,
  copy: rows.Evictable,
  spareMs: number,
): Promise<number | undefined> {
  const { db } = context
  const { repository_id: repositoryId, is_blob: isBlob } = copy
  try {
    const freed = await db.transaction(async tx => {
      if (mirror.isRemovable && !(await holdMirror(tx, mirror.prefix))) throw new MirrorGone()
      const name = copy.repository
      const repository = name === null ? undefined : await holdExistingRepository(tx, name)
      if (name === null || repository?.id !== repositoryId) {
        await rows.takeUse(tx, copy, spareMs)
        return undefined
      }
      const place = { prefix: mirror.prefix, repositoryId, repository: name, digest: copy.digest, spareMs }
      return isBlob ? await evictBlob(tx, place) : await evictManifest(context, tx, place)
    })
    if (freed !== undefined) await settleUsage(db, repositoryId)
    return freed
  } catch (error) {
    if (!(error instanceof RegistryError) || error.code !== 'DENIED') throw error
    // A tag rule keeps it.
    await db.transaction(tx => rows.postponeUse(tx, copy))
    return undefined
  }
}

interface Place {
  readonly prefix: string
  readonly repositoryId: number
  readonly repository: RepositoryName
  readonly digest: Digest
  readonly spareMs: number
}

async function evictBlob(tx: Transaction, place: Place): Promise<number | undefined> {
  const { prefix, repositoryId, repository, digest, spareMs } = place
  if (!(await rows.takeUse(tx, { repository_id: repositoryId, digest }, spareMs))) return undefined
  // One that a manifest names goes with that.
  const { links, bytes } = await rows.evictLinks(tx, prefix, repositoryId, [digest], spareMs)
  if (links === 0) return undefined
  await insertEvent(tx, 'blob.evict', repository, { digest, bytes })
  return bytes
}

async function evictManifest(context: RegistryContext, tx: Transaction, place: Place): Promise<number | undefined> {
  const { prefix, repositoryId, repository, digest, spareMs } = place
  const copy = { repository_id: repositoryId, digest }
  if (await rows.followSubject(tx, copy)) return undefined
  const guard = await openTagGuard(tx, repository, { isRetention: true })
  const family = await rows.familyOf(tx, copy)
  if (
    await rows.isInUse(
      tx,
      repositoryId,
      family.filter(other => other !== digest),
      spareMs,
    )
  ) {
    await rows.postponeUse(tx, copy)
    return undefined
  }
  if (!(await rows.takeUse(tx, copy, spareMs))) return undefined
  const gone = []
  for (const member of family) {
    const removed = await removeCopy(context, tx, { repositoryId, digest: member, guard })
    if (removed !== undefined) gone.push(removed)
  }
  if (gone.length === 0) return undefined
  const named = gone.flatMap(({ blobs }) => blobs)
  const { bytes } = await rows.evictLinks(tx, prefix, repositoryId, [...new Set(named)], spareMs)
  const freed = gone.reduce((sum, { size }) => sum + size, bytes)
  for (const { digest: evicted, tags } of gone) {
    const whole = evicted === digest ? { bytes: freed } : { subject: digest }
    await insertEvent(tx, 'manifest.evict', repository, { digest: evicted, tags, ...whole })
  }
  return freed
}

interface RemovedCopy {
  readonly digest: Digest
  readonly size: number
  readonly tags: readonly string[]
  readonly blobs: readonly Digest[]
}

/** Deletes a manifest as an administrator would, and collects it at once. @throws RegistryError DENIED by a tag rule. */
async function removeCopy(
  context: RegistryContext,
  tx: Transaction,
  what: { readonly repositoryId: number; readonly digest: Digest; readonly guard: TagGuard },
): Promise<RemovedCopy | undefined> {
  const { repositoryId, digest, guard } = what
  const manifest = await manifests.lockManifest(tx, repositoryId, digest)
  if (manifest === undefined) return undefined
  const { manifest_id: id, size } = manifest
  const tags = await tagsOf(tx, repositoryId, id)
  for (const tag of tags) guard.check(tag, 'deleted')
  const blobs = await rows.blobsOf(tx, repositoryId, [id])
  await removeTagsOf(tx, repositoryId, manifest, 'mirror')
  await manifests.hideManifest(tx, id, 0)
  // The blobs go on counting until their links go.
  await insertReleases(tx, [{ repository_id: repositoryId, size }])
  await insertUsage(tx, repositoryId, { ...NO_USAGE, tags: -tags.length })
  const held = await releaseDependants(tx, [id], keptMs(context.lifetimes))
  // Where something it names is being changed, it is left to the sweep, hidden.
  if (held.has(id)) return { digest, size, tags, blobs: [] }
  await deleteManifests(tx, [id])
  return { digest, size, tags, blobs }
}
