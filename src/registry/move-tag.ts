import type { RepositoryName, Tag } from '../oci/name.ts'
import type { Transaction } from '../metadata/database.ts'
import { insertEvent } from '../metadata/events.ts'
import { unrootManifest } from '../metadata/manifests.ts'
import { type PointedTag, type TagAction, type TagTarget, pointTag } from '../metadata/tags.ts'
import type { Caller, RegistryContext } from './context.ts'
import type { TagGuard } from './tag-guard.ts'

/**
 * Points a tag at a manifest that is there already; answers what that changed. The caller has serialised the tag's
 * writers and locked both manifests.
 * @throws RegistryError DENIED where a tag rule refuses.
 */
export async function moveTag(
  context: RegistryContext,
  tx: Transaction,
  move: {
    readonly repositoryId: number
    readonly name: RepositoryName
    readonly tag: Tag
    readonly target: TagTarget
    readonly caller: Caller
    readonly guard: TagGuard
    readonly action: TagAction
  },
): Promise<PointedTag['change']> {
  const { repositoryId, tag, target, action } = move
  const { principal } = move.caller
  const { manifest_id: manifestId, digest } = target
  const pointed = await pointTag(tx, { repositoryId, name: tag, manifestId, digest, principal, action })
  if (pointed.change === 'unchanged') return 'unchanged'
  move.guard.check(tag, pointed.change)
  if (pointed.change === 'moved') {
    await unrootManifest(tx, pointed.former.manifest_id, context.lifetimes.untaggedRetentionMs)
  }
  await insertEvent(tx, 'tag.move', move.name, { tags: [tag], digest, action, principal })
  return pointed.change
}
