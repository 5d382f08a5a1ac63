import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import type { RequestedWork, StorageControl, StoreOwnership } from './access/actor.ts'
import type { Config } from './config.ts'
import { type Ownership, StoreOwner, adoptStores } from './gc/store-owner.ts'
import type { Job } from './jobs/schedule.ts'
import type { Log } from './log.ts'
import type { Database } from './metadata/database.ts'
import { postgresIncarnation } from './metadata/store-claims.ts'
import { findStoreNames } from './metadata/stores.ts'
import { meteredStore } from './metrics/metered-registry.ts'
import type { Metrics } from './metrics/metrics.ts'
import { workOnCopy } from './moving/storage-copy.ts'
import type { Readiness } from './routes/health.ts'
import type { BlobStore } from './storage/blob-store.ts'
import { readMarkerFile, writeMarkerFile } from './storage/file-marker.ts'
import { openFile } from './storage/file-support.ts'
import { openFilesystemStore } from './storage/filesystem.ts'
import { checkBucket } from './storage/s3-check.ts'
import { openS3Store } from './storage/s3.ts'
import { type OpenStore, Stores } from './storage/stores.ts'

/** A move begins when it is asked for; this is for one whose process died. */
const MOVE_LOOK_MS = 60_000
/** What a directory has for its transfers where a bucket is configured as well. */
const BESIDE_S3_BYTES = 64 * 2 ** 20

/** The stores of a registry, and whose they are. */
export interface ContentStorage {
  readonly stores: Stores
  /** What administration may ask of them. */
  readonly control: StorageControl
  /** Whether bytes may be deleted in a store: it is this registry's, and has been for a while. */
  mayDelete(store: BlobStore): Promise<boolean>
  /** What moves content. */
  readonly jobs: readonly Job[]
  /** Whether the index and every store answer, and no row names a store that is not configured. What fails is logged. */
  readiness(): Promise<Readiness>
}

/** Opens every store that is configured, in working order. @throws StoreUnavailable, BucketUnusable, DatabaseUnavailable */
export async function openContentStorage(
  config: Config,
  db: Database,
  metrics: Metrics,
  log: Log,
  opened: AsyncDisposableStack,
): Promise<ContentStorage> {
  const stores = await openStores(config, metrics, opened)
  const incarnation = await incarnationOf(db, config.data.dir)
  const owners = new Owners(db, stores, incarnation, log)
  await owners.claim()
  metrics.watchStores(() => owners.states())
  return {
    stores,
    control: owners,
    mayDelete: async store => (await owners.check(store.name)) === 'ours',
    jobs: [moveJob(config, db, stores, owners, log)],
    readiness: async () => await readiness(db, stores, log, owners.notes()),
  }
}

async function openStores({ storage }: Config, metrics: Metrics, opened: AsyncDisposableStack): Promise<Stores> {
  const open = async (name: (typeof storage.stores)[number]): Promise<OpenStore> =>
    name === 's3' ? await openBucket(storage, metrics, opened) : await openDirectory(storage, metrics, opened)
  const stores: OpenStore[] = []
  for (const name of storage.stores) stores.push(await open(name))
  const [first, ...others] = stores
  if (first === undefined) throw new TypeError('no store is configured')
  return new Stores(first, ...others)
}

async function openDirectory(
  { stores, uploadMemoryBytes, filesystem }: Config['storage'],
  metrics: Metrics,
  opened: AsyncDisposableStack,
): Promise<OpenStore> {
  const bufferBytes = stores.includes('s3') ? Math.min(uploadMemoryBytes, BESIDE_S3_BYTES) : uploadMemoryBytes
  const store = await openFilesystemStore({ directory: filesystem.directory, bufferBytes })
  opened.defer(() => store.close())
  return { store: meteredStore(store, metrics) }
}

async function openBucket(
  { uploadMemoryBytes, s3 }: Config['storage'],
  metrics: Metrics,
  opened: AsyncDisposableStack,
): Promise<OpenStore> {
  const store = openS3Store({ ...s3, uploadMemoryBytes })
  opened.defer(() => store.close())
  await checkBucket(store.bucket)
  const metered = meteredStore(store, metrics)
  return s3.redirect ? { store: metered, presigning: store } : { store: metered }
}

/** What tells this index from a copy of it: for Postgres its place in its cluster, else a file in the data directory. */
async function incarnationOf(db: Database, dataDir: string): Promise<string> {
  if (db.driver === 'postgres') return await postgresIncarnation(db)
  const path = join(dataDir, 'index.id')
  const found = await readMarkerFile(path)
  if (found !== undefined) return found
  const made = `embedded ${randomUUID()}`
  await writeMarkerFile(path, made, openFile)
  return made
}

const WORDS: Readonly<Record<Exclude<Ownership, 'ours' | 'settling'>, string>> = {
  unclaimed: 'has no marker though it is in use',
  foreign: 'belongs to another registry, or this one was restored or copied',
  contested: 'is used by this registry and by a copy of it, or this one was restored from an older state',
}

/** Whose every store is, as this process last saw it. */
class Owners implements StorageControl {
  readonly names: readonly string[]
  readonly #db: Database
  readonly #stores: Stores
  readonly #incarnation: string
  readonly #log: Log
  readonly #owners: ReadonlyMap<string, StoreOwner>

  constructor(db: Database, stores: Stores, incarnation: string, log: Log) {
    this.names = stores.names
    this.#db = db
    this.#stores = stores
    this.#incarnation = incarnation
    this.#log = log
    this.#owners = new Map(stores.all.map(store => [store.name, new StoreOwner(db, store, incarnation)]))
  }

  async claim(): Promise<void> {
    for (const [name, owner] of this.#owners) this.#tell(name, undefined, await owner.claim())
  }

  /** Whose a store is now. @throws StoreUnavailable, DatabaseUnavailable */
  async check(name: string): Promise<Ownership | undefined> {
    const owner = this.#owners.get(name)
    const before = owner?.last
    const found = await owner?.check()
    if (found !== undefined) this.#tell(name, before, found)
    return found
  }

  async ownership(name: string): Promise<StoreOwnership> {
    try {
      return (await this.check(name)) ?? 'unknown'
    } catch (err) {
      this.#log.warn({ err, store: name }, 'the marker of a store cannot be read')
      return 'unknown'
    }
  }

  async adopt(): Promise<void> {
    await adoptStores(this.#db, this.#stores.all, this.#incarnation)
    for (const name of this.names) await this.check(name)
  }

  /** 1 for the stores that are ours. */
  states(): ReadonlyMap<string, boolean> {
    return new Map([...this.#owners].map(([name, { last }]) => [name, isOurs(last)]))
  }

  notes(): readonly string[] {
    return [...this.#owners].flatMap(([name, { last }]) =>
      last === undefined || isOurs(last) ? [] : [noteOf(name, last)],
    )
  }

  #tell(name: string, before: Ownership | undefined, now: Ownership): void {
    if (before === now) return
    if (!isOurs(now)) this.#log.warn({ store: name, owner: now }, noteOf(name, now))
    else if (before !== undefined && !isOurs(before)) this.#log.info({ store: name }, 'the store is this registry’s')
  }
}

function isOurs(ownership: Ownership | undefined): ownership is 'ours' | 'settling' {
  return ownership === 'ours' || ownership === 'settling'
}

function noteOf(name: string, ownership: Exclude<Ownership, 'ours' | 'settling'>): string {
  return `the store ${name} ${WORDS[ownership]}: nothing is deleted there until berth storage adopt`
}

/** What works on the move that was asked for. */
function moveJob({ registry }: Config, db: Database, stores: Stores, owners: Owners, log: Log): Job {
  return {
    name: 'move content' satisfies RequestedWork,
    everyMs: MOVE_LOOK_MS,
    run: async signal => {
      const outcome = await workOnCopy(
        {
          db,
          stores,
          graceMs: registry.trashGraceMs,
          draftMs: registry.uploadExpiryMs,
          mayUse: async store => isOurs(await owners.check(store.name)),
          onFailure: (blob, err) =>
            log.error({ err, digest: blob.digest, store: blob.store }, 'a blob cannot be copied'),
        },
        signal,
      )
      if (outcome !== undefined) log.info({ outcome }, 'the move of content ended')
    },
  }
}

/** Whether the index and every store answer, and no row names a store that is not configured. What fails is logged. */
export async function readiness(
  db: Database,
  stores: Stores,
  log: Log,
  moreNotes: readonly string[] = [],
): Promise<Readiness> {
  try {
    const missing = (await findStoreNames(db)).filter(name => !stores.names.includes(name))
    for (const store of stores.all) await store.check()
    const notes = missing.map(name => `the index names the store ${name}, which is not configured`)
    if (missing.length > 0) log.error({ missing }, 'not ready: the index names a store that is not configured')
    return { isReady: missing.length === 0, notes: [...notes, ...moreNotes] }
  } catch (err) {
    log.warn({ err }, 'not ready')
    return { isReady: false, notes: [] }
  }
}
