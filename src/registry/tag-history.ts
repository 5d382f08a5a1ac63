import type { Digest } from '../oci/digest.ts'
import { RegistryError } from '../oci/errors.ts'
import type { RepositoryName, Tag } from '../oci/name.ts'
import type { Transaction } from '../metadata/database.ts'
import { findRepository } from '../metadata/repositories.ts'
import * as history from '../metadata/tag-history.ts'
import { type TagAction, serialiseTag, targetOf } from '../metadata/tags.ts'
import { recordAct } from './audit.ts'
import { type AdminCaller, type RegistryContext } from './context.ts'
import { type Page, page } from './lists.ts'
import { moveTag } from './move-tag.ts'
import { openTagGuard } from './tag-guard.ts'
import { holdOrRefuse, reviveFamily } from './undelete.ts'
import { addUsage } from './usage.ts'

/** One change of a tag: made where `from` is null, removed where `to` is. */
export interface TagHistoryEntry {
  readonly id: number
  readonly at: Date
  readonly from: Digest | null
  readonly to: Digest | null
  readonly by: string | null
  readonly action: TagAction | null
}

/** Changes of a tag, newest first, before the entry of id `last`. @throws RegistryError NAME_UNKNOWN. */
export async function listTagHistory(
  context: RegistryContext,
  tag: { readonly name: RepositoryName; readonly tag: Tag },
  ask: { readonly last: number | undefined; readonly limit: number },
): Promise<Page<TagHistoryEntry>> {
  const repository = await findRepository(context.db, tag.name)
  if (repository === undefined) throw new RegistryError('NAME_UNKNOWN', { detail: { name: tag.name } })
  const of = { repositoryId: repository.id, name: tag.tag }
  const rows = await history.listTagHistory(context.db, of, ask.last, ask.limit + 1)
  const { items, next } = page(rows, ask.limit, row => String(row.id))
  return { items: items.map(present), ...(next === undefined ? {} : { next }) }
}

function present(row: history.TagHistoryRow): TagHistoryEntry {
  const { id, changed_at: at, old_digest: from, new_digest: to, changed_by: by, action } = row
  return { id, at, from, to, by, action }
}

/** Where to roll back to: a digest that the tag has pointed to, or so many changes ago. */
export type RollbackTarget = { readonly to: Digest } | { readonly steps: number }

/**
 * Points a tag at an earlier digest of its history, bringing that back where it was deleted. Audited.
 * @throws RegistryError NAME_UNKNOWN; NOT_FOUND where there is no such tag, history or content; CONFLICT where a blob was
 * deleted since; DENIED where a tag rule refuses.
 */
export async function rollBackTag(
  context: RegistryContext,
  rollback: { readonly name: RepositoryName; readonly tag: Tag; readonly target: RollbackTarget },
  caller: AdminCaller,
): Promise<{ readonly from: Digest; readonly to: Digest }> {
  const { name, tag } = rollback
  return await context.db.transaction(async tx => {
    const repository = await holdOrRefuse(tx, name)
    const repositoryId = repository.id
    const guard = await openTagGuard(tx, name, caller)
    await serialiseTag(tx, repositoryId, tag)
    const present = await targetOf(tx, repositoryId, tag)
    if (present === undefined) {
      throw new RegistryError('NOT_FOUND', {
        message: `there is no ${name}:${tag}: undelete brings a deleted tag back`,
      })
    }
    const digest = await earlierDigest(tx, { repositoryId, tag }, rollback.target)
    if (digest === undefined) {
      const what = 'to' in rollback.target ? `has not pointed to ${rollback.target.to}` : 'does not go back so far'
      throw new RegistryError('NOT_FOUND', { message: `the history of ${name}:${tag} ${what}` })
    }
    const place = { repositoryId, name, caller }
    const { target, use } = await reviveFamily(context, tx, place, { digest, tags: [tag] })
    const change = await moveTag(context, tx, { repositoryId, name, tag, target, caller, guard, action: 'rollback' })
    const moved = { from: present.digest, to: digest }
    if (change !== 'unchanged') await recordAct(tx, caller, 'tag.rollback', { repository: name, tag, ...moved })
    // A deletion of its manifest may have taken the tag since it was looked for.
    await addUsage(tx, repository, { ...use, tags: change === 'created' ? 1 : 0 })
    return moved
  })
}

async function earlierDigest(
  tx: Transaction,
  { repositoryId, tag }: { readonly repositoryId: number; readonly tag: Tag },
  target: RollbackTarget,
): Promise<Digest | undefined> {
  if ('steps' in target) return await history.formerDigest(tx, repositoryId, tag, target.steps)
  return (await history.hasPointedTo(tx, repositoryId, tag, target.to)) ? target.to : undefined
}
