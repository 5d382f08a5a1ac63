import type { Digest } from '../oci/digest.ts'
import { RegistryError } from '../oci/errors.ts'
import type { Reference, RepositoryName, Tag } from '../oci/name.ts'
import type { Transaction } from '../metadata/database.ts'
import { insertEvent } from '../metadata/events.ts'
import * as manifests from '../metadata/manifests.ts'
import { holdExistingRepository } from '../metadata/repositories.ts'
import { removeTagsOf, tagsOf } from '../metadata/tags.ts'
import { NO_USAGE, insertUsage } from '../metadata/usage.ts'
import { recordAct } from './audit.ts'
import { type AdminCaller, type Caller, type RegistryContext, checkBinding } from './context.ts'
import { type TagGuard, openTagGuard } from './tag-guard.ts'
import { keptMs, lockTags, removeLockedTag } from './tags.ts'
import { removeManifests, settleUsage } from './usage.ts'

/**
 * Deletes one tag, or a manifest and every tag on it: distribution-spec, "Deleting tags" and "Deleting Manifests".
 * What is deleted is invisible at once, and can be brought back until its grace is over.
 * @throws RegistryError MANIFEST_UNKNOWN; UNSUPPORTED while a visible index names the manifest; DENIED where a tag rule
 * refuses.
 */
export async function deleteManifest(
  context: RegistryContext,
  name: RepositoryName,
  reference: Reference,
  caller: Caller,
): Promise<void> {
  const { allowChildDelete } = context
  const repositoryId = await context.db.transaction(tx =>
    deleteIn(context, tx, { name, reference, caller, allowChildDelete }),
  )
  await settleUsage(context.db, repositoryId)
}

/**
 * The same for an administrator, who can force the deletion of a manifest that an index names: the index stays and
 * cannot be pulled as a whole. Audited.
 * @throws RegistryError as {@link deleteManifest} does.
 */
export async function deleteManifestByAdmin(
  context: RegistryContext,
  deletion: { readonly name: RepositoryName; readonly reference: Reference; readonly force: boolean },
  caller: AdminCaller,
): Promise<void> {
  const { name, reference, force } = deletion
  const allowChildDelete = force || context.allowChildDelete
  const repositoryId = await context.db.transaction(async tx => {
    const deletedFrom = await deleteIn(context, tx, { name, reference, caller, allowChildDelete })
    await recordAct(tx, caller, 'manifest.delete', { repository: name, ...reference, force })
    return deletedFrom
  })
  await settleUsage(context.db, repositoryId)
}

interface Deletion {
  readonly name: RepositoryName
  readonly reference: Reference
  readonly caller: Caller
  readonly allowChildDelete: boolean
}

/** Answers the repository whose use has become less. */
async function deleteIn(context: RegistryContext, tx: Transaction, deletion: Deletion): Promise<number> {
  const { name, reference, caller } = deletion
  const repository = await holdExistingRepository(tx, name)
  if (repository === undefined) throw unknownManifest(reference)
  checkBinding(caller, repository.id)
  const guard = await openTagGuard(tx, name, caller)
  if (reference.tag === undefined)
    await removeManifest(context, tx, { ...deletion, repositoryId: repository.id, guard, digest: reference.digest })
  else await removeOneTag(context, tx, { ...deletion, repositoryId: repository.id, guard, tag: reference.tag })
  return repository.id
}

interface Located extends Deletion {
  readonly repositoryId: number
  readonly guard: TagGuard
}

async function removeOneTag(
  context: RegistryContext,
  tx: Transaction,
  deletion: Located & { readonly tag: Tag },
): Promise<void> {
  const { repositoryId, tag, caller } = deletion
  await lockTags(tx, repositoryId, [tag])
  const { name: repository, guard } = deletion
  const target = { repositoryId, repository, name: tag, principal: caller.principal, guard }
  if ((await removeLockedTag(context, tx, target)) === undefined) throw unknownManifest(deletion.reference)
}

async function removeManifest(
  context: RegistryContext,
  tx: Transaction,
  deletion: Located & { readonly digest: Digest },
): Promise<void> {
  const { repositoryId, digest, caller, guard } = deletion
  const manifest = await manifests.lockManifest(tx, repositoryId, digest)
  if (manifest === undefined) throw unknownManifest(deletion.reference)
  const parent = deletion.allowChildDelete ? undefined : await manifests.findParent(tx, repositoryId, digest)
  if (parent !== undefined) {
    throw new RegistryError('UNSUPPORTED', {
      message: 'an index names this manifest: delete the index first',
      detail: { digest, index: parent },
    })
  }
  if (guard.hasRules) {
    for (const tag of await tagsOf(tx, repositoryId, manifest.manifest_id)) guard.check(tag, 'deleted')
  }
  await manifests.hideManifest(tx, manifest.manifest_id, context.lifetimes.deleteGraceMs)
  await manifests.unrootDependants(tx, repositoryId, manifest, keptMs(context.lifetimes))
  await removeManifests(tx, repositoryId, [{ id: manifest.manifest_id, size: manifest.size }])
  // After the links, which an undelete holds when it makes tags.
  const tags = await removeTagsOf(tx, repositoryId, manifest, caller.principal)
  await insertUsage(tx, repositoryId, { ...NO_USAGE, tags: -tags })
  await insertEvent(tx, 'manifest.delete', deletion.name, { digest, tags, principal: caller.principal })
}

function unknownManifest(reference: Reference): RegistryError {
  return new RegistryError('MANIFEST_UNKNOWN', { detail: { reference: reference.tag ?? reference.digest } })
}
