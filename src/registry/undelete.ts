import type { Digest } from '../oci/digest.ts'
import { RegistryError } from '../oci/errors.ts'
import { parseManifest } from '../oci/manifest.ts'
import type { RepositoryName, Tag } from '../oci/name.ts'
import type { Transaction } from '../metadata/database.ts'
import { insertEvent } from '../metadata/events.ts'
import { readManifestContent } from '../metadata/manifests.ts'
import { type RepositoryRow, holdExistingRepository } from '../metadata/repositories.ts'
import { lastRemoved, restoreTags, tagsRemovedWith } from '../metadata/tag-history.ts'
import { type TagTarget, serialiseTag, serialiseTags, targetOf } from '../metadata/tags.ts'
import { bindEdges, findAbsentBlobs, lockFamily, reviveManifests } from '../metadata/undelete.ts'
import { countLinks } from '../metadata/usage.ts'
import { recordAct } from './audit.ts'
import { type AdminCaller, type RegistryContext } from './context.ts'
import { planManifest } from './manifest-plan.ts'
import { moveTag } from './move-tag.ts'
import { openTagGuard } from './tag-guard.ts'
import { type Addition, addUsage } from './usage.ts'

/** What came back. */
export interface Undeleted {
  readonly digest: Digest
  /** Tags that point to it again. */
  readonly tags: readonly Tag[]
  /** Manifests that are visible again: itself, children and referrers that were deleted after it. */
  readonly manifests: readonly Digest[]
}

/**
 * Brings a deleted manifest back as it was: with its children and referrers that were deleted after it, and the tags
 * that its deletion took with it and that are free. One that is there already is success. Audited.
 * @throws RegistryError NOT_FOUND where nothing is left to bring back; CONFLICT where a blob was deleted since; DENIED
 * where a tag rule refuses.
 */
export async function undeleteManifest(
  context: RegistryContext,
  name: RepositoryName,
  digest: Digest,
  caller: AdminCaller,
): Promise<Undeleted> {
  return await context.db.transaction(async tx => {
    const repository = await holdOrRefuse(tx, name)
    const repositoryId = repository.id
    const guard = await openTagGuard(tx, name, caller)
    const place = { repositoryId, name, caller }
    // As pushes do: who writes tags is waited for before any manifest is locked.
    await serialiseTags(tx, repositoryId)
    const { target, manifests, use } = await reviveFamily(context, tx, place, { digest, tags: [] })
    const names = await tagsRemovedWith(tx, repositoryId, digest)
    const tags = await restoreTags(tx, repositoryId, names, target, caller.principal)
    for (const tag of tags) guard.check(tag, 'created')
    if (tags.length > 0) {
      const { principal } = caller
      await insertEvent(tx, 'tag.move', name, { tags, digest, action: 'undelete', principal })
    }
    if (manifests.length + tags.length > 0) {
      await recordAct(tx, caller, 'manifest.undelete', { repository: name, digest, tags: tags.length })
    }
    await addUsage(tx, repository, { ...use, tags: tags.length })
    return { digest, tags, manifests }
  })
}

/**
 * Points a deleted tag at what it pointed to when it was deleted last, and brings that back where it was deleted as
 * well. A tag that points there already is success. Audited.
 * @throws RegistryError NOT_FOUND where nothing is left to bring back; CONFLICT where the tag is there with another
 * digest (unless `force`) or a blob was deleted since; DENIED where a tag rule refuses.
 */
export async function undeleteTag(
  context: RegistryContext,
  undeletion: { readonly name: RepositoryName; readonly tag: Tag; readonly force: boolean },
  caller: AdminCaller,
): Promise<Undeleted> {
  const { name, tag, force } = undeletion
  return await context.db.transaction(async tx => {
    const repository = await holdOrRefuse(tx, name)
    const repositoryId = repository.id
    const guard = await openTagGuard(tx, name, caller)
    await serialiseTag(tx, repositoryId, tag)
    const digest = await lastRemoved(tx, repositoryId, tag)
    if (digest === undefined) {
      throw new RegistryError('NOT_FOUND', { message: `no deletion of ${name}:${tag} is remembered` })
    }
    const present = await targetOf(tx, repositoryId, tag)
    if (present !== undefined && present.digest !== digest && !force) {
      throw new RegistryError('CONFLICT', {
        message: `${name}:${tag} is there with another digest, ${present.digest}: with force it is moved to ${digest}`,
      })
    }
    const { target, manifests, use } = await reviveFamily(
      context,
      tx,
      { repositoryId, name, caller },
      { digest, tags: [tag] },
    )
    const change = await moveTag(context, tx, { repositoryId, name, tag, target, caller, guard, action: 'undelete' })
    if (change !== 'unchanged') await recordAct(tx, caller, 'tag.undelete', { repository: name, tag, digest, force })
    await addUsage(tx, repository, { ...use, tags: change === 'created' ? 1 : 0 })
    return { digest, tags: [tag], manifests }
  })
}

/** @returns the living repository, held. @throws RegistryError NAME_UNKNOWN. */
export async function holdOrRefuse(tx: Transaction, name: RepositoryName): Promise<RepositoryRow> {
  const repository = await holdExistingRepository(tx, name)
  if (repository === undefined) throw new RegistryError('NAME_UNKNOWN', { detail: { name } })
  return repository
}

/** Where content comes back, and by whom. */
interface Place {
  readonly repositoryId: number
  readonly name: RepositoryName
  readonly caller: AdminCaller
}

/**
 * Makes a manifest visible, where it is hidden, with what was hidden after it. Locks what `tags` point to as well, so
 * that one statement locks manifests in the order of their ids. The caller counts the `use` of what came back, last.
 * @throws RegistryError NOT_FOUND, CONFLICT.
 */
export async function reviveFamily(
  context: RegistryContext,
  tx: Transaction,
  { repositoryId, name, caller }: Place,
  { digest, tags }: { readonly digest: Digest; readonly tags: readonly Tag[] },
): Promise<{ readonly target: TagTarget; readonly manifests: readonly Digest[]; readonly use: Addition }> {
  const family = await lockFamily(tx, repositoryId, digest, tags)
  const [head] = family
  if (head === undefined || (head.hidden && !head.returns)) {
    throw new RegistryError('NOT_FOUND', {
      message: `nothing is left of ${digest}: what is deleted can be brought back for registry.deleteGrace, what lost its last tag for registry.untaggedRetention`,
    })
  }
  const target = { manifest_id: head.id, digest }
  const returning = family.filter(member => member.returns)
  if (returning.length === 0) return { target, manifests: [], use: { links: [] } }
  const stays = family.filter(member => member.returns || !member.hidden).map(member => member.id)
  await reviveManifests(tx, stays, context.lifetimes.leaseMs)
  const ids = returning.map(member => member.id)
  const uncounted = await bindEdges(tx, repositoryId, ids)
  if (context.requireBlobs) await requireBlobsOf(tx, ids)
  const manifests = returning.map(member => member.digest)
  await insertEvent(tx, 'manifest.undelete', name, { digest, manifests, principal: caller.principal })
  const use = {
    links: await countLinks(tx, repositoryId, uncounted),
    manifests: returning.length,
    manifestBytes: returning.reduce((sum, { size }) => sum + size, 0),
  }
  return { target, manifests, use }
}

/** A hidden manifest does not keep its blobs from being deleted. @throws RegistryError CONFLICT where one was. */
async function requireBlobsOf(tx: Transaction, ids: readonly number[]): Promise<void> {
  const absent = Map.groupBy(await findAbsentBlobs(tx, ids), blob => blob.manifest_id)
  for (const [id, blobs] of absent) {
    const content = await readManifestContent(tx, id)
    if (content === undefined) throw new Error('a locked manifest is gone')
    const plan = planManifest(parseManifest(content.payload, content.media_type))
    const required = new Set(plan.blobs.filter(blob => blob.required).map(blob => blob.digest))
    const missing = blobs.find(blob => required.has(blob.digest))
    if (missing === undefined) continue
    throw new RegistryError('CONFLICT', {
      message: `blob ${missing.digest}, which ${content.digest} names, was deleted since: push it again first`,
    })
  }
}
