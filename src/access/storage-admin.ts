import * as copies from '../metadata/storage-copy.ts'
import { measureStores } from '../metadata/stores.ts'
import { RegistryError } from '../oci/errors.ts'
import { type Actor, type AdministrationContext, type StoreOwnership, record, requireAdmin } from './actor.ts'

/** A store as administrators see it. Sizes in bytes. */
export interface StoreView {
  readonly name: string
  readonly takesNewContent: boolean
  readonly configured: boolean
  readonly owner: StoreOwnership
  readonly blobs: number
  readonly bytes: number
  readonly uploads: number
  readonly trash: number
}

/** The move of content that was asked for last. Sizes in bytes; `leftBlobs` as far as it is known. */
export interface CopyView {
  readonly to: string
  readonly state: 'running' | copies.CopyOutcome
  readonly foundBlobs: number
  readonly foundBytes: number
  readonly copiedBlobs: number
  readonly copiedBytes: number
  readonly leftBlobs: number
  readonly leftBytes: number
  readonly failedBlobs: number
  readonly lastFailure: string | null
  readonly atOnce: number
  readonly bytesPerSecond: number | null
  readonly requestedAt: string
  readonly requestedBy: string
  readonly endedAt: string | null
}

/** A move to ask for. */
export interface CopyAsk {
  readonly to: string
  readonly atOnce: number
  readonly bytesPerSecond?: number | undefined
}

/** Every store that is configured or named by a row, and what lies in it. @throws RegistryError DENIED. */
export async function listStores({ db, storage }: AdministrationContext, actor: Actor): Promise<readonly StoreView[]> {
  await requireAdmin(db, actor)
  const usage = new Map((await measureStores(db)).map(row => [row.store, row]))
  const names = [...storage.names, ...[...usage.keys()].filter(name => !storage.names.includes(name))]
  const views: StoreView[] = []
  for (const [index, name] of names.entries()) {
    const configured = index < storage.names.length
    const { blobs = 0, bytes = 0, uploads = 0, trash = 0 } = usage.get(name) ?? {}
    const owner = configured ? await storage.ownership(name) : 'unknown'
    views.push({ name, takesNewContent: index === 0, configured, owner, blobs, bytes, uploads, trash })
  }
  return views
}

/** What a move to a store would copy. @throws RegistryError DENIED, INVALID. */
export async function planStorageCopy(
  context: AdministrationContext,
  actor: Actor,
  to: string,
): Promise<{ readonly blobs: number; readonly bytes: number }> {
  await requireAdmin(context.db, actor)
  return await copies.measureStoredBlobs(context.db, othersThan(context, to))
}

/**
 * Asks for everything to be moved to a store; this process begins, and another goes on where it dies.
 * @throws RegistryError DENIED; INVALID for a store that is not configured; CONFLICT while a move is under way, or where
 * the store is not this registry's.
 */
export async function startStorageCopy(
  context: AdministrationContext,
  actor: Actor,
  { to, atOnce, bytesPerSecond }: CopyAsk,
): Promise<CopyView> {
  const { db, storage } = context
  await requireAdmin(db, actor)
  othersThan(context, to)
  const owner = await storage.ownership(to)
  if (owner !== 'ours' && owner !== 'settling') {
    throw new RegistryError('CONFLICT', {
      message: `the store ${to} is not this registry's (${owner}): see berth storage adopt`,
    })
  }
  const copy = await db.transaction(async tx => {
    const ask = { target: to, atOnce, bytesPerSecond, requestedBy: actor.identity.name }
    if (!(await copies.requestCopy(tx, ask))) {
      throw new RegistryError('CONFLICT', {
        message: 'a move is under way: wait for it, or end it by berth storage stop',
      })
    }
    await record(tx, actor, 'storage.copy', { to, atOnce, bytesPerSecond: bytesPerSecond ?? null })
    return present(await copies.findCopy(tx))
  })
  context.onWorkRequested('move content')
  return copy
}

/** The move that was asked for last. @throws RegistryError DENIED; NOT_FOUND where none ever was. */
export async function getStorageCopy({ db }: AdministrationContext, actor: Actor): Promise<CopyView> {
  await requireAdmin(db, actor)
  return present(await copies.findCopy(db))
}

/** Ends the move that is under way; what was moved stays moved. @throws RegistryError DENIED; NOT_FOUND without one. */
export async function stopStorageCopy({ db }: AdministrationContext, actor: Actor): Promise<void> {
  await requireAdmin(db, actor)
  await db.transaction(async tx => {
    if (!(await copies.stopCopy(tx))) throw new RegistryError('NOT_FOUND', { message: 'no move is under way' })
    await record(tx, actor, 'storage.stop', {})
  })
}

/** Makes the stores that are configured this registry's, so that it deletes in them. @throws RegistryError DENIED. */
export async function adoptStorage({ db, storage }: AdministrationContext, actor: Actor): Promise<void> {
  await requireAdmin(db, actor)
  // Before the act: one that is broken off in the middle is on record as well.
  await db.transaction(tx => record(tx, actor, 'storage.adopt', { stores: storage.names }))
  await storage.adopt()
}

/** The stores that content moves from. @throws RegistryError INVALID where `to` is none that is configured. */
function othersThan({ storage }: AdministrationContext, to: string): readonly string[] {
  if (storage.names.includes(to)) return storage.names.filter(name => name !== to)
  const known = storage.names.join(' and ')
  throw new RegistryError('INVALID', { message: `there is no store ${to}: configured here: ${known}` })
}

function present(row: copies.StorageCopyRow | undefined): CopyView {
  if (row === undefined) throw new RegistryError('NOT_FOUND', { message: 'nothing was ever moved' })
  return {
    to: row.target,
    state: row.outcome ?? 'running',
    foundBlobs: row.found_blobs,
    foundBytes: row.found_bytes,
    copiedBlobs: row.copied_blobs,
    copiedBytes: row.copied_bytes,
    leftBlobs: Math.max(0, row.found_blobs - row.copied_blobs),
    leftBytes: Math.max(0, row.found_bytes - row.copied_bytes),
    failedBlobs: row.failed_blobs,
    lastFailure: row.last_failure,
    atOnce: row.at_once,
    bytesPerSecond: row.bytes_per_second,
    requestedAt: row.requested_at.toISOString(),
    requestedBy: row.requested_by,
    endedAt: row.ended_at?.toISOString() ?? null,
  }
}
