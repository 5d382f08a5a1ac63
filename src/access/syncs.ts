import * as items from '../metadata/sync-items.ts'
import * as rows from '../metadata/sync-runs.ts'
import { listSyncSchedules } from '../metadata/sync-schedule.ts'
import { RegistryError } from '../oci/errors.ts'
import { type Actor, type AdministrationContext, type SyncSetting, record, requireAdmin } from './actor.ts'
import { found } from './names.ts'
import { type Page, type PageRequest, idOf, pageOf } from './page.ts'

/** A sync with when it runs. */
export interface SyncInfo extends SyncSetting {
  readonly nextRunAt: Date | null
  readonly lastRun: SyncRun | null
}

/** A run of a sync, and how far it is. */
export interface SyncRun extends Pick<rows.SyncTotals, 'images' | 'copied' | 'skipped' | 'failed' | 'bytes'> {
  readonly id: number
  readonly sync: string
  readonly dryRun: boolean
  readonly state: 'waiting' | 'running' | 'done' | 'failed' | 'stopped'
  readonly askedBy: string
  readonly createdAt: Date
  readonly finishedAt: Date | null
  /** Whether all images are listed. */
  readonly listed: boolean
  readonly upToDate: number
  readonly toCopy: number
  readonly error: string | null
}

/** What came of an image; one without a tag is a repository that could not be listed. */
export interface SyncItem extends Pick<
  items.SyncItemRow,
  'repository' | 'tag' | 'target' | 'digest' | 'outcome' | 'reason' | 'manifests' | 'blobs' | 'bytes'
> {}

/** The syncs of the settings by name. @throws RegistryError DENIED. */
export async function listSyncs(
  { db, syncs }: AdministrationContext,
  actor: Actor,
  { last, limit }: PageRequest,
): Promise<Page<SyncInfo>> {
  await requireAdmin(db, actor)
  const known = syncs
    .toSorted((one, other) => (one.name < other.name ? -1 : 1))
    .filter(({ name }) => name > last)
    .slice(0, limit + 1)
  const schedules = await listSyncSchedules(
    db,
    known.map(({ name }) => name),
  )
  const infos: SyncInfo[] = []
  for (const sync of known) {
    const [run] = await rows.listSyncRuns(db, sync.name, undefined, 1)
    const next = schedules.find(({ name }) => name === sync.name)?.next_run_at ?? null
    infos.push({
      ...sync,
      nextRunAt: sync.schedule === null ? null : next,
      lastRun: run === undefined ? null : present(run),
    })
  }
  return pageOf(infos, limit, { key: ({ name }) => name, present: info => info })
}

/**
 * Asks for a run of a sync; it is worked off in the background. Answers its id.
 * @throws RegistryError DENIED, NOT_FOUND; CONFLICT where one is under way.
 */
export async function startSync(
  { db, syncs }: AdministrationContext,
  actor: Actor,
  ask: { readonly sync: string; readonly dryRun: boolean },
): Promise<{ readonly id: number }> {
  await requireAdmin(db, actor)
  const { name } = found(
    syncs.find(sync => sync.name === ask.sync),
    `sync ${ask.sync}`,
  )
  return await db.transaction(async tx => {
    const id = await rows.insertSyncRun(tx, { name, isDry: ask.dryRun, askedBy: actor.identity.name })
    if (id === undefined) {
      throw new RegistryError('CONFLICT', {
        message: `a run of sync ${name} is under way: wait for it, or end it by berth sync stop ${name}`,
      })
    }
    await record(tx, actor, 'sync.run', { ...ask, run: id })
    return { id }
  })
}

/**
 * Stops the run of a sync that waits or is under way; what was copied stays. Also of one that is not set any more.
 * @throws RegistryError DENIED; NOT_FOUND where there is none.
 */
export async function stopSync({ db }: AdministrationContext, actor: Actor, name: string): Promise<void> {
  await requireAdmin(db, actor)
  await db.transaction(async tx => {
    const run = found(await rows.stopSyncRun(tx, name), `run of sync ${name} under way`)
    await record(tx, actor, 'sync.stop', { sync: name, run })
  })
}

/** Runs, newest first. @throws RegistryError DENIED. */
export async function listSyncRuns(
  { db }: AdministrationContext,
  actor: Actor,
  sync: string | undefined,
  { last, limit }: PageRequest,
): Promise<Page<SyncRun>> {
  await requireAdmin(db, actor)
  const runs = await rows.listSyncRuns(db, sync, idOf(last), limit + 1)
  return pageOf(runs, limit, { key: ({ id }) => String(id), present })
}

/** One run. @throws RegistryError DENIED, NOT_FOUND. */
export async function getSyncRun({ db }: AdministrationContext, actor: Actor, runId: string): Promise<SyncRun> {
  await requireAdmin(db, actor)
  const id = idOf(runId)
  return present(found(id === undefined ? undefined : await rows.findSyncRun(db, id), `sync run ${runId}`))
}

/** What came of each image of a run, by their names at the source. @throws RegistryError DENIED, NOT_FOUND. */
export async function listSyncItems(
  context: AdministrationContext,
  actor: Actor,
  of: { readonly run: string; readonly outcome: items.SyncOutcome | undefined },
  { last, limit }: PageRequest,
): Promise<Page<SyncItem>> {
  const { id } = await getSyncRun(context, actor, of.run)
  const [repository = '', tag = ''] = last.split(' ')
  const page = await items.listSyncItems(context.db, id, of.outcome, { repository, tag }, limit + 1)
  return pageOf(page, limit, { key: item => `${item.repository} ${item.tag}`, present: item => ({ ...item }) })
}

function present(row: rows.SyncRunWithTotals): SyncRun {
  const { id, name: sync, images, copied, skipped, failed, bytes, error } = row
  return {
    id,
    sync,
    dryRun: row.is_dry,
    state: row.is_running ? 'running' : row.state,
    askedBy: row.asked_by,
    createdAt: row.created_at,
    finishedAt: row.finished_at,
    listed: row.is_listed,
    images,
    copied,
    upToDate: row.up_to_date,
    toCopy: row.to_copy,
    skipped,
    failed,
    bytes,
    error,
  }
}
