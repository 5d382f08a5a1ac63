import type { Digest } from '../oci/digest.ts'
import type { RepositoryName, Tag } from '../oci/name.ts'
import type { Transaction } from '../metadata/database.ts'
import { insertEvent } from '../metadata/events.ts'
import { lockTargets, unrootManifest } from '../metadata/manifests.ts'
import { removeTag, serialiseTag, targetOf } from '../metadata/tags.ts'
import { NO_USAGE, insertUsage } from '../metadata/usage.ts'
import type { Lifetimes, RegistryContext } from './context.ts'
import type { TagGuard } from './tag-guard.ts'

/**
 * Holds tags still for their removal, to the end of the transaction, in the order in which pushes do; with the manifests of
 * `digests`, which are to be changed beside them.
 */
export async function lockTags(
  tx: Transaction,
  repositoryId: number,
  tags: readonly Tag[],
  digests: readonly string[] = [],
): Promise<void> {
  for (const tag of tags.toSorted()) await serialiseTag(tx, repositoryId, tag)
  await lockTargets(tx, repositoryId, digests, tags)
}

/**
 * Removes one tag that {@link lockTags} holds: its manifest stays pullable by digest for as long as what is deleted can be
 * brought back, or what is untagged stays, whichever is longer. Answers what it pointed to; undefined where there is no
 * such tag. @throws RegistryError DENIED where a tag rule refuses; then nothing was changed.
 */
export async function removeLockedTag(
  { lifetimes }: Pick<RegistryContext, 'lifetimes'>,
  tx: Transaction,
  tag: {
    readonly repositoryId: number
    readonly repository: RepositoryName
    readonly name: Tag
    /** Recorded as who removed it. */
    readonly principal: string | undefined
    readonly guard: TagGuard
  },
): Promise<Digest | undefined> {
  const { repositoryId, repository, name, principal, guard } = tag
  const target = await targetOf(tx, repositoryId, name)
  if (target === undefined) return undefined
  guard.check(name, 'deleted')
  await removeTag(tx, repositoryId, name, principal)
  await unrootManifest(tx, target.manifest_id, keptMs(lifetimes))
  await insertUsage(tx, repositoryId, { ...NO_USAGE, tags: -1 })
  await insertEvent(tx, 'tag.delete', repository, { tag: name, digest: target.digest, principal })
  return target.digest
}

/** How long visible content stays that lost a root by a deletion, in milliseconds: it can be brought back, and was untagged as well. */
export function keptMs({ deleteGraceMs, untaggedRetentionMs }: Lifetimes): number {
  return Math.max(deleteGraceMs, untaggedRetentionMs)
}
