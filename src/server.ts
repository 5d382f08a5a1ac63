import { constants } from 'node:fs'
import { access, mkdir } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { RequestedWork } from './access/actor.ts'
import { accessRoutes, openAccessControl, serveLocally } from './access-control.ts'
import { createApp, createLocalApp } from './app.ts'
import type { Config } from './config.ts'
import { openContentStorage } from './content-storage.ts'
import { listen } from './http-server.ts'
import { type Job, type Schedule, startJobs } from './jobs/schedule.ts'
import { type Log, createLog } from './log.ts'
import type { Database } from './metadata/database.ts'
import { openEmbedded } from './metadata/embedded.ts'
import { migrate } from './metadata/migrate.ts'
import { openPostgres, refuseOldServer } from './metadata/postgres.ts'
import { releaseAllSyncRuns } from './metadata/sync-runs.ts'
import { releaseAllUploads } from './metadata/uploads.ts'
import { meteredDatabase } from './metrics/metered-database.ts'
import { meteredRegistry } from './metrics/metered-registry.ts'
import { type Metrics, createMetrics } from './metrics/metrics.ts'
import type { RefusalObserver } from './middleware/refusals.ts'
import type { RequestRecord } from './middleware/request-log.ts'
import type { RegistryContext } from './registry/context.ts'
import { PullCounts } from './registry/pull-counts.ts'
import { createRegistry } from './registry/registry.ts'
import { openMirrors } from './mirroring.ts'
import { forgetRuns, retain } from './retention/retention.ts'
import type { Stores } from './storage/stores.ts'
import { syncJobs } from './syncing.ts'
import type { TlsObserver } from './tls.ts'
import { upkeepJobs } from './upkeep.ts'
import { usageJobs } from './usage-jobs.ts'
import { VERSION } from './version.ts'

/** A running registry. */
export interface RunningServer {
  readonly url: string
  /** The password of the first administrator, where this start generated one. */
  readonly generatedPassword: string | undefined
  /** After the configured delay: stops accepting, lets running transfers finish up to the configured limit, then closes everything in order. */
  close(): Promise<void>
}

const MINUTE_MS = 60_000

/**
 * Composition root: log, metadata, storage, registry, application, listen.
 * @throws IndexUnusable, DatabaseUnavailable, StoreUnavailable or the system's error; what was opened is closed again.
 */
export async function serve(config: Config): Promise<RunningServer> {
  const log = createLog(config.log)
  // What was opened last is closed first.
  const opened = new AsyncDisposableStack()
  try {
    await useDirectory(config.data.dir)
    const metrics = createMetrics(VERSION)
    const db = meteredDatabase(await openIndex(config, log, opened), metrics)
    const content = await openContentStorage(config, db, metrics, log, opened)
    const pulls = openPullCounts(config, db, log, opened)
    const context = { ...registryContext(config, db, content.stores), pulls }
    let schedule: Schedule | undefined
    const own = meteredRegistry(createRegistry(context), metrics)
    let listeningAt: string | undefined
    const internalUrl = (): string | undefined => internalUrlOf(config, listeningAt)
    const mirroring = await openMirrors(config, context, own, internalUrl, metrics.mirrors, log, opened)
    const { registry, addressing, control, fetches, jobs: mirrorJobs } = mirroring
    const controls = { storage: content.control, mirrors: control }
    const accessControl = await openAccessControl(config, db, controls, log, opened, work => schedule?.wake(work))
    const { access, administration } = accessControl
    const allJobs = [
      ...content.jobs,
      ...upkeepJobs({ config, db, content, metrics: metrics.collection, log }),
      ...retentionJobs(config, db, pulls),
      ...usageJobs(config, db, log, metrics),
      ...accessControl.jobs,
      ...mirrorJobs,
      ...syncJobs({ config, db, own, registry, log }),
    ]
    schedule = startJobs(allJobs, (job, err) => log.warn({ job, err }, 'job failed'))
    opened.defer(() => schedule?.stop())
    const metricsUrl = await serveMetrics(config, metrics, log, opened)
    const observe = (record: RequestRecord): void => {
      metrics.observeRequest(record)
      logRequest(log, record)
    }
    const onError = (error: unknown): void => log.warn({ err: error }, 'error outside a request')
    const local = createLocalApp({ registry, administration, version: VERSION, observe, onError }).callback()
    await serveLocally(config, (req, res) => void local(req, res), log, opened)
    let isLeaving = false
    const app = createApp({
      registry,
      addressing,
      ...(fetches === undefined ? {} : { fetches }),
      ...(access === undefined ? {} : { access: accessRoutes(config, access, administration) }),
      trustedProxies: config.http.trustedProxies,
      proxyHeaders: config.http.proxyHeaders,
      manifestMaxBytes: config.registry.manifestMaxBytes,
      tagListMax: config.registry.tagListMax,
      observe,
      onError,
      ready: async () => (isLeaving ? { isReady: false, notes: ['stopping'] } : await content.readiness()),
    })
    const { host, port, idleTimeoutMs, shutdownTimeoutMs, shutdownDelayMs } = config.http
    const onRefusal: RefusalObserver = refusal => log.info(refusal, 'request refused')
    const tls = config.tls && { ...config.tls, ...tlsObserver(log) }
    const handle = app.callback()
    const server = await listen({ host, port, idleTimeoutMs, handle, onRefusal, ...(tls === undefined ? {} : { tls }) })
    opened.defer(() => server.close(shutdownTimeoutMs))
    const { url } = server
    listeningAt = url
    log.info({ url, metricsUrl, dataDir: config.data.dir, index: db.driver, version: VERSION }, 'listening')
    return {
      url,
      generatedPassword: access?.generatedPassword,
      async close() {
        isLeaving = true
        if (shutdownDelayMs > 0) {
          log.info({ shutdownDelayMs }, 'leaving: requests are still answered, but the process is no longer ready')
          await delay(shutdownDelayMs)
        }
        log.info('stopping: running transfers may finish')
        await opened.disposeAsync()
        log.info('stopped')
      },
    }
  } catch (error) {
    await opened.disposeAsync()
    throw error
  }
}

/** Where the other processes reach this one, which listens at `url`. */
function internalUrlOf({ cluster }: Config, url: string | undefined): string | undefined {
  if (cluster.internalUrl === undefined || url === undefined) return undefined
  const internal = new URL(cluster.internalUrl)
  if (internal.port === '0') internal.port = new URL(url).port
  return internal.origin
}

/** @throws the system's error, with the path, where the directory cannot be had or written to. */
async function useDirectory(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true })
  await access(directory, constants.R_OK | constants.W_OK | constants.X_OK)
}

async function openIndex(config: Config, log: Log, opened: AsyncDisposableStack): Promise<Database> {
  const { url, poolSize, statementTimeoutMs } = config.database
  const db =
    url === undefined
      ? await openEmbedded({ directory: join(config.data.dir, 'index'), timeoutMs: statementTimeoutMs, log })
      : await openPostgres({ url, poolSize, statementTimeoutMs, log })
  opened.defer(() => db.close())
  if (db.driver === 'postgres') await refuseOldServer(db)
  const { applied } = await migrate(db)
  if (applied.length > 0) log.info({ applied }, 'index migrated')
  if (db.driver === 'embedded') {
    await db.transaction(async tx => {
      await releaseAllUploads(tx)
      await releaseAllSyncRuns(tx)
    })
  }
  return db
}

/** Counts pulls; what is left is written when everything that could be pulled from is closed. */
function openPullCounts(config: Config, db: Database, log: Log, opened: AsyncDisposableStack): PullCounts {
  const { pullCountMs: flushMs, pullsIgnoredOf: ignored } = config.registry
  const pulls = new PullCounts(db, { flushMs, ignored, onError: err => log.warn({ err }, 'pulls were not counted') })
  opened.defer(() => pulls.flush())
  return pulls
}

function registryContext(config: Config, db: Database, stores: Stores): RegistryContext {
  const { requireBlobs, requireChildren, allowChildDelete } = config.registry
  return { db, stores, lifetimes: config.registry, requireBlobs, requireChildren, allowChildDelete }
}

/** Serves /metrics on its own port. One that is taken (a second process here) must not keep the registry from running. */
async function serveMetrics(
  config: Config,
  metrics: Metrics,
  log: Log,
  opened: AsyncDisposableStack,
): Promise<string | undefined> {
  const { enabled, host, port } = config.metrics
  if (!enabled) return undefined
  const handle = async (req: IncomingMessage, res: ServerResponse): Promise<void> => {
    if (req.url !== '/metrics') res.writeHead(404).end()
    else res.setHeader('Content-Type', metrics.contentType).end(await metrics.render())
  }
  try {
    const onRefusal: RefusalObserver = refusal => log.debug(refusal, 'request for metrics refused')
    const server = await listen({ host, port, idleTimeoutMs: MINUTE_MS, handle, onRefusal })
    opened.defer(() => server.close(0))
    return `${server.url}/metrics`
  } catch (err) {
    const reason = err instanceof Error ? err.message : String(err)
    log.warn({ reason }, 'metrics are not served: give this process a free address by BERTH_METRICS_PORT (0 takes any)')
    return undefined
  }
}

/** What is kept of runs of retention, for those who ask what became of a tag. */
const RUNS_KEPT_MS = 90 * 24 * 60 * MINUTE_MS

function retentionJobs(config: Config, db: Database, pulls: PullCounts): Job[] {
  const context = { db, lifetimes: config.registry, flushPulls: () => pulls.flush() }
  return [
    // What somebody asks for begins at once; this is for schedules, and for runs whose process died.
    { name: 'retain' satisfies RequestedWork, everyMs: MINUTE_MS, run: signal => retain(context, signal) },
    {
      name: 'forget retention runs',
      everyMs: 60 * MINUTE_MS,
      run: signal => forgetRuns(context, RUNS_KEPT_MS, signal),
    },
  ]
}

function tlsObserver(log: Log): TlsObserver {
  return {
    reloaded: () => log.info('the certificate was read again'),
    failed: err => log.error({ err }, 'the new certificate cannot be used: the former goes on'),
  }
}

function logRequest(log: Log, { error, route: _route, ...record }: RequestRecord): void {
  const durationMs = Math.round(record.durationMs * 100) / 100
  if (record.status < 500) log.info({ ...record, durationMs }, 'request')
  else log.error({ ...record, durationMs, err: error }, 'request failed')
}
