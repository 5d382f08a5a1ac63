import { RegistryError } from '../oci/errors.ts'
import type { RepositoryName } from '../oci/name.ts'
import { sqlState } from '../metadata/database.ts'
import { insertEvent } from '../metadata/events.ts'
import { enterQuotas, leaveQuotas, returnBatch } from '../metadata/quota-leaving.ts'
import { holdQuotas } from '../metadata/quotas.ts'
import { findRepository } from '../metadata/repositories.ts'
import * as rows from '../metadata/repository-admin.ts'
import { lockDeletedRepository, reviveRepository } from '../metadata/undelete.ts'
import { recordAct } from './audit.ts'
import { type AdminCaller, type RegistryContext, type VisibleNames } from './context.ts'
import { type Page, page } from './lists.ts'
import { checkEveryTag, openTagGuard } from './tag-guard.ts'
import { settleLeaving } from './usage.ts'

/** A repository, living or deleted. */
export interface RepositoryInfo {
  /** Tells deleted repositories of one name apart. */
  readonly id: number
  readonly name: string
  readonly createdAt: Date
}

/** A repository that can be brought back. */
export interface DeletedRepositoryInfo extends RepositoryInfo {
  readonly deletedAt: Date
  readonly deletedBy: string | null
  /** Until then it can be brought back for sure. */
  readonly keptUntil: Date
}

/** A living repository with what it holds; more than {@link COUNTED} of something is not counted on. */
export interface RepositoryDetails extends RepositoryInfo {
  readonly tags: number
  readonly manifests: number
}

/** Counting is work for each thing that is counted. */
export const COUNTED = 10_000

/** Visible living repositories, also empty ones, by name after `last`. */
export async function listRepositories(
  context: RegistryContext,
  visible: VisibleNames,
  { last, limit }: { readonly last: string; readonly limit: number },
): Promise<Page<RepositoryInfo>> {
  const found = await rows.pageOfRepositories(context.db, visible, last, limit + 1)
  const { items, next } = page(found, limit, row => row.name)
  return { items: items.map(present), ...(next === undefined ? {} : { next }) }
}

/** Visible deleted repositories that can be brought back, by id after `last`. */
export async function listDeletedRepositories(
  context: RegistryContext,
  visible: VisibleNames,
  { last, limit }: { readonly last: number; readonly limit: number },
): Promise<Page<DeletedRepositoryInfo>> {
  const found = await rows.pageOfDeletedRepositories(context.db, visible, last, limit + 1)
  const { items, next } = page(found, limit, row => String(row.id))
  const deleted = items.flatMap(row => {
    const { deleted_at: deletedAt, deleted_by: deletedBy } = row
    if (deletedAt === null) return []
    const keptUntil = new Date(deletedAt.getTime() + context.lifetimes.deleteGraceMs)
    return [{ ...present(row), deletedAt, deletedBy, keptUntil }]
  })
  return { items: deleted, ...(next === undefined ? {} : { next }) }
}

/** A living repository with what it holds. @throws RegistryError NAME_UNKNOWN. */
export async function describeRepository(context: RegistryContext, name: RepositoryName): Promise<RepositoryDetails> {
  const row = await rows.describeRepository(context.db, name, COUNTED)
  if (row === undefined) throw unknown(name)
  return { ...present(row), tags: row.tags, manifests: row.manifests }
}

function present(row: rows.RepositoryInfoRow): RepositoryInfo {
  return { id: row.id, name: row.name, createdAt: row.created_at }
}

/**
 * Deletes a repository: its name is free at once, and all that is in it can be brought back until the grace is over.
 * Audited.
 * @throws RegistryError NAME_UNKNOWN; DENIED where a tag rule keeps one of its tags.
 */
export async function deleteRepository(
  context: RegistryContext,
  name: RepositoryName,
  caller: AdminCaller,
): Promise<void> {
  const deleted = await context.db.transaction(async tx => {
    const id = await rows.lockRepository(tx, name)
    if (id === undefined) throw unknown(name)
    const guard = await openTagGuard(tx, name, caller)
    await checkEveryTag(tx, guard, id, 'deleted')
    await leaveQuotas(tx, id)
    await rows.hideRepository(tx, id, caller.principal)
    await insertEvent(tx, 'repository.delete', name, { id, principal: caller.principal })
    await recordAct(tx, caller, 'repository.delete', { repository: name, id })
    return id
  })
  await settleLeaving(context.db, deleted)
}

/**
 * Brings a deleted repository back whole, the one of that name that was deleted last or the one of `id`; answers its
 * id. Audited.
 * @throws RegistryError NOT_FOUND where none is left to bring back; CONFLICT where the name was taken since; DENIED where
 * a tag rule refuses one of its tags.
 */
export async function undeleteRepository(
  context: RegistryContext,
  { name, id }: { readonly name: RepositoryName; readonly id: number | undefined },
  caller: AdminCaller,
): Promise<{ readonly id: number }> {
  for (;;) {
    const revived = await revive(context, { name, id }, caller)
    if (revived.isBack) return { id: revived.id }
    while (!(await context.db.transaction(tx => returnBatch(tx, revived.id))));
  }
}

/** Does nothing where quotas have to be told of the repository's links before. */
async function revive(
  context: RegistryContext,
  { name, id }: { readonly name: RepositoryName; readonly id: number | undefined },
  caller: AdminCaller,
): Promise<{ readonly id: number; readonly isBack: boolean }> {
  try {
    return await context.db.transaction(async tx => {
      await holdQuotas(tx)
      const deleted = await lockDeletedRepository(tx, name, id)
      if (deleted === undefined || deleted.draining) {
        throw new RegistryError('NOT_FOUND', {
          message: `no deleted repository ${name} is left to bring back: it can be for registry.deleteGrace`,
        })
      }
      const guard = await openTagGuard(tx, name, caller)
      await checkEveryTag(tx, guard, deleted.id, 'created')
      if ((await findRepository(tx, name)) !== undefined) throw taken(name)
      if (!(await enterQuotas(tx, deleted.id))) return { id: deleted.id, isBack: false }
      await reviveRepository(tx, deleted.id)
      await insertEvent(tx, 'repository.undelete', name, { id: deleted.id, principal: caller.principal })
      await recordAct(tx, caller, 'repository.undelete', { repository: name, id: deleted.id })
      return { id: deleted.id, isBack: true }
    })
  } catch (error) {
    if (sqlState(error) !== '23505') throw error
    throw taken(name, error)
  }
}

function taken(name: RepositoryName, cause?: unknown): RegistryError {
  return new RegistryError('CONFLICT', {
    message: `there is a repository ${name} again: delete it first, or keep it`,
    cause,
  })
}

function unknown(name: RepositoryName): RegistryError {
  return new RegistryError('NAME_UNKNOWN', { detail: { name } })
}
