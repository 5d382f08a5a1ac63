import { createHash } from 'node:crypto'
import { type Digest, algorithmOf, digestOf } from '../oci/digest.ts'
import { RegistryError } from '../oci/errors.ts'
import { parseManifest } from '../oci/manifest.ts'
import type { Reference, RepositoryName, Tag } from '../oci/name.ts'
import { holdLinks } from '../metadata/blobs.ts'
import type { Transaction } from '../metadata/database.ts'
import { insertEvent } from '../metadata/events.ts'
import { LookUp } from '../metadata/look-up.ts'
import * as manifests from '../metadata/manifests.ts'
import { holdRepository, rememberSha512 } from '../metadata/repositories.ts'
import { type CountedLink, countLinks } from '../metadata/usage.ts'
import { RowMemory } from '../metadata/row-memory.ts'
import { pointTag, serialiseTag } from '../metadata/tags.ts'
import { type Caller, type RegistryContext, checkBinding, promiseOf } from './context.ts'
import { type AbsentContent, type ManifestPlan, absentContent, planManifest, warningsOf } from './manifest-plan.ts'
import { openTagGuard } from './tag-guard.ts'
import { chargeQuotas, usageOf } from './usage.ts'

/** A visible manifest. `size` in bytes. */
export interface ManifestInfo {
  readonly id: number
  readonly repositoryId: number
  readonly digest: Digest
  readonly mediaType: string
  readonly size: number
  /** What whoever pulls it should know. */
  readonly warnings?: readonly string[]
  /** Its bytes, where it is passed on without being kept: `id` and `repositoryId` are of no row then. */
  readonly payload?: Uint8Array
}

/** Finds visible manifests, many with one statement. */
export type ManifestLookUp = LookUp<manifests.ManifestKey, manifests.ManifestRow>

/** Opens the look-up of manifests that {@link statManifest} asks. */
export function openManifestLookUp({ db, lifetimes }: RegistryContext): ManifestLookUp {
  const { enoughMs, maxAgeMs } = promiseOf(lifetimes)
  return new LookUp(
    keys => manifests.findManifests(db, keys, enoughMs),
    ({ repository, reference }) => `${repository} ${reference.tag ?? reference.digest}`,
    {},
    new RowMemory({ changes: () => db.changes(), maxAgeMs }),
  )
}

/**
 * The manifest a tag or digest names. To a caller who may push, the answer is a promise of at least half a lease.
 * @throws RegistryError MANIFEST_UNKNOWN.
 */
export async function statManifest(
  context: RegistryContext,
  lookUp: ManifestLookUp,
  name: RepositoryName,
  reference: Reference,
  caller: Caller,
): Promise<ManifestInfo> {
  const { leaseMs } = context.lifetimes
  const row = await lookUp.find({ repository: name, reference })
  if (row !== undefined) {
    checkBinding(caller, row.repository_id)
    const promised =
      !caller.mayPush ||
      row.leased ||
      (await context.db.transaction(tx => manifests.renewManifest(tx, row.id, leaseMs)))
    const { id, repository_id: repositoryId, digest, media_type: mediaType, size } = row
    if (promised) return { id, repositoryId, digest, mediaType, size }
  }
  throw new RegistryError('MANIFEST_UNKNOWN', {
    detail: { reference: reference.tag ?? reference.digest },
  })
}

/** The bytes of a manifest exactly as they were pushed. @throws RegistryError MANIFEST_UNKNOWN when it is gone. */
export async function readManifest(context: RegistryContext, manifest: ManifestInfo): Promise<Uint8Array> {
  const payload = await manifests.readPayload(context.db, manifest.id)
  if (payload === undefined) throw new RegistryError('MANIFEST_UNKNOWN', { detail: { digest: manifest.digest } })
  return payload
}

/** A manifest as a client sends it. */
export interface ManifestPush {
  readonly name: RepositoryName
  readonly reference: Reference
  /** Tags of a push by digest (`?tag=`). */
  readonly tags: readonly Tag[]
  readonly contentType: string | undefined
  readonly bytes: Uint8Array
}

/** What a push wrote. */
export interface PushedManifest {
  readonly digest: Digest
  readonly subject: Digest | undefined
  readonly tags: readonly Tag[]
  /** What the client should know of a push that was taken: content that is named and cannot be pulled from here. */
  readonly warnings: readonly string[]
}

/**
 * Stores a manifest verbatim with its edges and tags in one transaction: distribution-spec, "Pushing Manifests".
 * Repeating it is success.
 * @throws RegistryError MANIFEST_INVALID, DIGEST_INVALID, MANIFEST_BLOB_UNKNOWN (an entry for each missing digest);
 * DENIED where a tag rule refuses, or a quota has no room for it.
 */
export async function pushManifest(
  context: RegistryContext,
  push: ManifestPush,
  caller: Caller,
): Promise<PushedManifest> {
  const plan = planManifest(parseManifest(push.bytes, push.contentType))
  const algorithm = push.reference.digest === undefined ? 'sha256' : algorithmOf(push.reference.digest)
  const digest = digestOf(algorithm, createHash(algorithm).update(push.bytes).digest('hex'))
  if (push.reference.digest !== undefined && push.reference.digest !== digest) {
    throw new RegistryError('DIGEST_INVALID', {
      detail: { expected: push.reference.digest, received: digest },
    })
  }
  const tags = [
    ...new Set(push.reference.tag === undefined ? push.tags : [push.reference.tag, ...push.tags]),
  ].toSorted()
  const warnings = await context.db.transaction(async tx => {
    const repository = await holdRepository(tx, push.name)
    checkBinding(caller, repository.id)
    if (algorithm === 'sha512') await rememberSha512(tx, repository.id)
    const guard = tags.length === 0 ? undefined : await openTagGuard(tx, push.name, caller)
    for (const tag of tags) await serialiseTag(tx, repository.id, tag)
    await manifests.lockTargets(tx, repository.id, [digest], tags)
    const { manifestId, appeared, absent, links } = await writeManifest(context, tx, {
      push,
      plan,
      digest,
      repositoryId: repository.id,
      caller,
    })
    const former = []
    let created = 0
    for (const tag of tags) {
      const { principal } = caller
      const target = { repositoryId: repository.id, name: tag, manifestId, digest, principal, action: 'push' } as const
      const pointed = await pointTag(tx, target)
      if (pointed.change !== 'unchanged') guard?.check(tag, pointed.change)
      if (pointed.change === 'created') created += 1
      if (pointed.change === 'moved') former.push(pointed.former)
    }
    for (const target of former) {
      await manifests.unrootManifest(tx, target.manifest_id, context.lifetimes.untaggedRetentionMs)
    }
    const visible = appeared ? { manifests: 1, manifestBytes: push.bytes.byteLength } : {}
    const addition = { links, ...visible, tags: created }
    const detail = { digest, tags, principal: caller.principal }
    const usage = { repositoryId: repository.id, change: usageOf(addition) }
    await insertEvent(tx, 'manifest.push', push.name, detail, usage)
    const full = await chargeQuotas(tx, repository, addition)
    return [...full, ...warningsOf(plan, absent)]
  })
  return { digest, subject: plan.subject, tags, warnings }
}

interface WrittenManifest {
  readonly manifestId: number
  /** Whether it was not visible before. */
  readonly appeared: boolean
  readonly absent: AbsentContent
  /** Links that count again because of it. */
  readonly links: readonly CountedLink[]
}

async function writeManifest(
  context: RegistryContext,
  tx: Transaction,
  write: {
    readonly push: ManifestPush
    readonly plan: ManifestPlan
    readonly digest: Digest
    readonly repositoryId: number
    readonly caller: Caller
  },
): Promise<WrittenManifest> {
  const { plan, repositoryId } = write
  const { id: manifestId, appeared } = await manifests.upsertManifest(tx, {
    repositoryId,
    digest: write.digest,
    mediaType: plan.mediaType,
    artifactType: plan.artifactType,
    subject: plan.subject,
    annotations: plan.annotations,
    payload: write.push.bytes,
    leaseMs: context.lifetimes.leaseMs,
    principal: write.caller.principal,
    provenance: write.caller.provenance,
  })
  const children = await manifests.holdManifests(tx, repositoryId, plan.children)
  const held = await holdLinks(
    tx,
    repositoryId,
    plan.blobs.map(blob => blob.digest),
  )
  const links = new Map(held.map(link => [link.digest, link.blob_id]))
  const absent = absentContent(plan, { blobs: links, children })
  const missing = [...(context.requireBlobs ? absent.blobs : []), ...(context.requireChildren ? absent.children : [])]
  if (missing.length > 0) {
    throw new RegistryError('MANIFEST_BLOB_UNKNOWN', {
      entries: missing.map(digest => ({
        message: 'the manifest names content that this repository does not have',
        detail: { digest },
      })),
    })
  }
  await manifests.insertBlobEdges(
    tx,
    repositoryId,
    manifestId,
    plan.blobs.map(({ digest }) => ({ digest, blobId: links.get(digest) })),
  )
  await manifests.insertChildEdges(
    tx,
    repositoryId,
    manifestId,
    plan.children.map(digest => ({ digest, childId: children.get(digest) })),
  )
  const uncounted = held.filter(link => !link.counted).map(link => link.blob_id)
  return { manifestId, appeared, absent, links: await countLinks(tx, repositoryId, uncounted) }
}
