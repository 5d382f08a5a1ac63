import { type CollectionQueue, type DueKind, type DueRow, listDue, measureQueue } from '../metadata/collection-queue.ts'
import { type DamagedBlob, countDamaged, listDamagedBlobs } from '../metadata/verification.ts'
import { type WorkName, type WorkRow, findWork, requestWork } from '../metadata/maintenance.ts'
import { type Actor, type AdministrationContext, record, requireAdmin } from './actor.ts'
import { type Page, type PageRequest, idOf, pageOf } from './page.ts'

/** The kinds of things that go, in the order in which they do. */
export const DUE_KINDS = ['upload', 'manifest', 'link', 'blob', 'bytes'] as const satisfies readonly DueKind[]

/** A run of a piece of work, as administrators see it. */
export interface RunInfo {
  /** Counts the runs, from 1; 0 before the first. */
  readonly run: number
  readonly state: 'never' | 'requested' | 'running' | 'waiting' | 'finished'
  readonly startedAt: Date | null
  readonly finishedAt: Date | null
  /** Why its last turn ended early; it goes on from where it was. */
  readonly failure: string | null
  readonly progress: Readonly<Record<string, number>>
}

/** The last collection that was asked for, and what waits for the collector now. Bytes and numbers of rows. */
export interface CollectionStatus {
  readonly run: RunInfo
  readonly queue: {
    readonly due: number
    readonly oldestDueAt: Date | null
    readonly unlinkedBlobs: number
    readonly trash: number
    readonly trashBytes: number
    readonly purgeable: number
    readonly purgeableBytes: number
    readonly oldestPurgeableAt: Date | null
  }
}

/** Something that a collection would take now, and why. */
export interface DueItem {
  readonly kind: DueKind
  readonly repository: string | null
  readonly digest: string | null
  /** Bytes, where they are known. */
  readonly size: number | null
  readonly since: Date
  readonly reason: string
}

/** The last verification, and how many blobs are damaged now. */
export interface VerificationStatus {
  readonly run: RunInfo
  readonly damaged: number
}

/** A blob that a verification found damaged, with one repository that has it. */
export interface DamagedInfo {
  readonly digest: string
  readonly size: number
  readonly damagedAt: Date
  readonly repository: string | null
}

/** Asks for a collection now; answers the number of its run. @throws RegistryError DENIED. */
export async function startCollection(context: AdministrationContext, actor: Actor): Promise<number> {
  return await start(context, actor, 'collection')
}

/** Asks for a verification now; answers the number of its run. @throws RegistryError DENIED. */
export async function startVerification(context: AdministrationContext, actor: Actor): Promise<number> {
  return await start(context, actor, 'verification')
}

async function start(context: AdministrationContext, actor: Actor, name: WorkName): Promise<number> {
  await requireAdmin(context.db, actor)
  const run = await context.db.transaction(async tx => {
    const number = await requestWork(tx, name)
    await record(tx, actor, `${name}.start`, { run: number })
    return number
  })
  context.onWorkRequested(name)
  return run
}

/** How the collection stands. @throws RegistryError DENIED. */
export async function collectionStatus(context: AdministrationContext, actor: Actor): Promise<CollectionStatus> {
  await requireAdmin(context.db, actor)
  const run = runInfo(await findWork(context.db, 'collection'))
  return { run, queue: presentQueue(await measureQueue(context.db)) }
}

/** How the verification stands. @throws RegistryError DENIED. */
export async function verificationStatus(context: AdministrationContext, actor: Actor): Promise<VerificationStatus> {
  await requireAdmin(context.db, actor)
  const run = runInfo(await findWork(context.db, 'verification'))
  return { run, damaged: await countDamaged(context.db) }
}

/** Damaged blobs, those that were stored first first. @throws RegistryError DENIED. */
export async function listDamaged(
  context: AdministrationContext,
  actor: Actor,
  { last, limit }: PageRequest,
): Promise<Page<DamagedInfo>> {
  await requireAdmin(context.db, actor)
  const present = ({ digest, size, damaged_at: damagedAt, repository }: DamagedBlob): DamagedInfo => ({
    digest,
    size,
    damagedAt,
    repository,
  })
  const rows = await listDamagedBlobs(context.db, idOf(last) ?? 0, limit + 1)
  return pageOf(rows, limit, { key: ({ id }) => String(id), present })
}

/**
 * What a collection would take now, of one kind, with the reason. What becomes free by that goes in later collections,
 * each after a lease of its own. @throws RegistryError DENIED.
 */
export async function listCollectable(
  context: AdministrationContext,
  actor: Actor,
  kind: DueKind,
  { last, limit }: PageRequest,
): Promise<Page<DueItem>> {
  await requireAdmin(context.db, actor)
  const present = (row: DueRow): DueItem => {
    const { repository, digest, size, since } = row
    return { kind, repository, digest, size, since, reason: reasonOf(kind, row) }
  }
  return pageOf(await listDue(context.db, kind, last, limit + 1), limit, { key: ({ key }) => key, present })
}

function reasonOf(kind: DueKind, row: DueRow): string {
  switch (kind) {
    case 'upload':
      return 'an upload session that nobody went on with in time'
    case 'manifest':
      if (row.deleted_at !== null)
        return `deleted at ${row.deleted_at.toISOString()}; the time to bring it back is over`
      if (row.subject !== null) return `no tag, no index, and no living subject: it refers to ${row.subject}`
      return 'no tag points to it, no index names it, and the time for untagged content is over'
    case 'link':
      return row.is_last
        ? 'no manifest of any repository names it, and the promise made to its pusher is over: its bytes go to the trash'
        : 'no manifest of this repository names it, and the promise made to its pusher is over; other repositories keep it'
    case 'blob':
      return 'no repository has it any more: its bytes go to the trash'
    case 'bytes':
      return 'nothing names these bytes, and their grace in the trash is over: they are deleted'
  }
}

function runInfo(row: WorkRow | undefined): RunInfo {
  return {
    run: row?.run ?? 0,
    state: stateOf(row),
    startedAt: row?.started_at ?? null,
    finishedAt: row?.started_at === null ? null : (row?.finished_at ?? null),
    failure: row?.failure ?? null,
    progress: (row?.progress ?? {}) as RunInfo['progress'],
  }
}

function stateOf(row: WorkRow | undefined): RunInfo['state'] {
  if (row === undefined) return 'never'
  if (row.requested) return 'requested'
  if (row.started_at === null) return 'never'
  if (row.finished_at !== null) return 'finished'
  return row.busy ? 'running' : 'waiting'
}

function presentQueue(queue: CollectionQueue): CollectionStatus['queue'] {
  return {
    due: queue.due,
    oldestDueAt: queue.oldest_due,
    unlinkedBlobs: queue.unlinked,
    trash: queue.trash,
    trashBytes: queue.trash_bytes,
    purgeable: queue.purgeable,
    purgeableBytes: queue.purgeable_bytes,
    oldestPurgeableAt: queue.oldest_purgeable,
  }
}
