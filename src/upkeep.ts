import { setTimeout as delay } from 'node:timers/promises'
import type { Config } from './config.ts'
import type { ContentStorage } from './content-storage.ts'
import { drainRepositories } from './gc/drain.ts'
import { type CollectionObserver, type CollectionProgress, collectNow } from './gc/collect.ts'
import { type WalkCursor, type WalkProgress, walkIndex } from './gc/consistency.ts'
import { expireUploads } from './gc/expire-uploads.ts'
import { pruneEvents } from './gc/prune-events.ts'
import { prunePullCounts } from './gc/prune-pulls.ts'
import { pruneTagHistory } from './gc/prune-tag-history.ts'
import { purgeTrash } from './gc/purge.ts'
import { reconcile } from './gc/reconcile.ts'
import { type SweepOptions, sweep } from './gc/sweep.ts'
import { type VerificationProgress, verifyBlobs } from './gc/verify.ts'
import { takeTurn } from './gc/work.ts'
import type { Job } from './jobs/schedule.ts'
import type { Log } from './log.ts'
import { measureQueue } from './metadata/collection-queue.ts'
import type { Database } from './metadata/database.ts'
import { countDamaged } from './metadata/verification.ts'
import type { CollectionMetrics } from './metrics/collection-metrics.ts'
import type { BlobStore } from './storage/blob-store.ts'

/** What the upkeep works with. */
export interface UpkeepContext {
  readonly config: Config
  readonly db: Database
  readonly content: Pick<ContentStorage, 'stores' | 'mayDelete'>
  readonly metrics: CollectionMetrics
  readonly log: Log
}

const MINUTE_MS = 60_000
/** Rows of the walk's statements, and how many of them in one turn, of which there is one a minute. */
const WALK_WINDOW = 500
const WALK_WINDOWS = 200

/** The background work on what is stored. Each job may run in every process at once. */
export function upkeepJobs(context: UpkeepContext): Job[] {
  const { config, db, content, metrics } = context
  const { deleteGraceMs, eventRetentionMs, tagHistoryRetentionMs } = config.registry
  const observer = collectionObserver(metrics)
  const jobs: Job[] = [
    ...content.stores.all.flatMap(store => disposalJobs(context, store, observer)),
    {
      name: 'expire uploads',
      everyMs: MINUTE_MS,
      run: async signal => observer.expired(await expireUploads(db, signal)),
    },
    {
      name: 'sweep',
      everyMs: MINUTE_MS,
      async run(signal) {
        const pause = pauseOf(config, signal)
        await sweep(db, sweepOptions(config), async batch => {
          observer.swept(batch)
          await pause()
        })
      },
    },
    {
      name: 'drain repositories',
      everyMs: MINUTE_MS,
      run: signal => drainRepositories(db, deleteGraceMs, pauseOf(config, signal)),
    },
    { name: 'prune pull counts', everyMs: 6 * 60 * MINUTE_MS, run: signal => prunePullCounts(db, signal) },
    { name: 'prune events', everyMs: 10 * MINUTE_MS, run: signal => pruneEvents(db, eventRetentionMs, signal) },
    {
      name: 'prune tag history',
      everyMs: 10 * MINUTE_MS,
      run: signal => pruneTagHistory(db, tagHistoryRetentionMs, signal),
    },
    { name: 'collection', everyMs: MINUTE_MS, run: signal => collectRequested(context, observer, signal) },
    { name: 'consistency', everyMs: MINUTE_MS, run: signal => walk(context, signal) },
    { name: 'verification', everyMs: MINUTE_MS, run: signal => verify(context, signal) },
    { name: 'measure', everyMs: MINUTE_MS, run: () => measure(context) },
  ]
  return jobs.map(job => timed(job, metrics))
}

/** What deletes bytes of a store, where it is ours. */
function disposalJobs({ config, db, content }: UpkeepContext, store: BlobStore, observer: CollectionObserver): Job[] {
  const { uploadExpiryMs, trashGraceMs } = config.registry
  const { reconcileMs } = config.storage
  const orphans: Job = {
    name: `reconcile ${store.name}`,
    everyMs: reconcileMs,
    async run(signal) {
      await reconcile(db, store, uploadExpiryMs + trashGraceMs, signal, () => content.mayDelete(store))
    },
  }
  const trash: Job = {
    name: `purge trash of ${store.name}`,
    everyMs: MINUTE_MS,
    async run(signal) {
      const pause = pauseOf(config, signal)
      await purgeTrash(db, store, {
        signal,
        batch: config.collection.batch,
        mayDelete: () => content.mayDelete(store),
        async onBatch(batch) {
          observer.purged(batch)
          await pause()
        },
      })
    },
  }
  return reconcileMs === 0 ? [trash] : [trash, orphans]
}

function timed(job: Job, metrics: CollectionMetrics): Job {
  return {
    ...job,
    async run(signal) {
      const began = performance.now()
      const ended = (isFailure: boolean): void => metrics.ran(job.name, (performance.now() - began) / 1000, isFailure)
      try {
        await job.run(signal)
        ended(false)
      } catch (error) {
        ended(true)
        throw error
      }
    },
  }
}

function collectionObserver(metrics: CollectionMetrics): CollectionObserver {
  return {
    swept({ manifests, links, blobs, bytes }) {
      metrics.collected('manifest', manifests)
      metrics.collected('link', links)
      metrics.collected('blob', blobs)
      metrics.trashed(bytes)
    },
    purged({ purged, freedBytes, failed }) {
      metrics.collected('object', purged)
      metrics.freed(freedBytes)
      metrics.stuck(failed)
    },
    expired: uploads => metrics.collected('upload', uploads),
  }
}

async function collectRequested(
  { config, db, content, log }: UpkeepContext,
  observer: CollectionObserver,
  signal: AbortSignal,
): Promise<void> {
  const collector = {
    db,
    stores: content.stores.all,
    mayDelete: content.mayDelete,
    options: sweepOptions(config),
    pause: pauseOf(config, signal),
    observer,
    signal,
  }
  const work = { name: 'collection', everyMs: undefined, signal } as const
  const ran = await takeTurn<null, CollectionProgress>(db, work, turn => collectNow(collector, turn))
  if (ran) log.info('the collection that was asked for is over')
}

async function walk({ config, db, metrics, log }: UpkeepContext, signal: AbortSignal): Promise<void> {
  const everyMs = config.collection.walkIntervalMs
  await takeTurn<WalkCursor, WalkProgress>(db, { name: 'consistency', everyMs, signal }, turn =>
    walkIndex(
      {
        db,
        window: WALK_WINDOW,
        windows: WALK_WINDOWS,
        leaseMs: config.registry.untaggedRetentionMs,
        pause: pauseOf(config, signal),
        onDrift(table, rows) {
          metrics.drifted(table, rows)
          log.warn({ table, rows }, 'rows that the collector would have missed were given back to it')
        },
      },
      turn,
    ),
  )
}

async function verify({ config, db, content, metrics, log }: UpkeepContext, signal: AbortSignal): Promise<void> {
  const { intervalMs: everyMs, bytesPerSecond } = config.verification
  await takeTurn<number, VerificationProgress>(db, { name: 'verification', everyMs, signal }, turn =>
    verifyBlobs(
      {
        db,
        stores: content.stores,
        bytesPerSecond,
        signal,
        delay: ms => delay(ms, undefined, { signal }),
        onVerdict({ digest, size, storage_key: key }, verdict, recovered) {
          metrics.verified(verdict, verdict === 'sound' ? size : 0)
          if (verdict !== 'sound') log.error({ digest, key, verdict }, 'a blob is kept out of sight until it is pushed')
          else if (recovered) log.info({ digest, key }, 'a blob that was found damaged is sound and shown again')
        },
      },
      turn,
    ),
  )
}

async function measure({ db, metrics }: UpkeepContext): Promise<void> {
  const queue = await measureQueue(db)
  metrics.queued({
    due: queue.due,
    oldestDueAt: queue.oldest_due,
    trashBytes: queue.trash_bytes,
    purgeable: queue.purgeable,
    oldestPurgeableAt: queue.oldest_purgeable,
    damaged: await countDamaged(db),
  })
}

/** Small batches with pauses between them: the collector has time, and pulls have not. */
function sweepOptions({ registry, collection }: Config): SweepOptions {
  return { batch: collection.batch, leaseMs: registry.leaseMs, trashGraceMs: registry.trashGraceMs }
}

function pauseOf({ collection }: Config, signal: AbortSignal): () => Promise<void> {
  return () => delay(collection.pauseMs, undefined, { signal })
}
