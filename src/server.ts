import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { createApp } from './app.ts'
import type { Config } from './config.ts'
import { expireUploads } from './gc/expire-uploads.ts'
import { pruneEvents } from './gc/prune-events.ts'
import { purgeTrash } from './gc/purge.ts'
import { type SweepOptions, sweep } from './gc/sweep.ts'
import { type Job, startJobs } from './jobs/schedule.ts'
import { type Log, createLog } from './log.ts'
import type { Database } from './metadata/database.ts'
import { openEmbedded } from './metadata/embedded.ts'
import { migrate } from './metadata/migrate.ts'
import { openPostgres } from './metadata/postgres.ts'
import { releaseAllUploads } from './metadata/uploads.ts'
import { type Metrics, createMetrics } from './metrics.ts'
import { answerRefusals } from './middleware/refusals.ts'
import type { RequestRecord } from './middleware/request-log.ts'
import { createRegistry } from './registry/registry.ts'
import type { BlobStore } from './storage/blob-store.ts'
import { openFilesystemStore } from './storage/filesystem.ts'
import { VERSION } from './version.ts'

/** A running registry. */
export interface RunningServer {
  readonly url: string
  readonly metricsUrl?: string
  /** Stops accepting, lets running transfers finish up to the configured limit, then closes everything in order. */
  close(): Promise<void>
}

/** Go clients keep idle connections for up to 120 s; ours must outlive theirs, or a request meets a closing socket. */
const KEEP_ALIVE_MS = 150_000
const HTTP_OPTIONS = {
  keepAliveTimeout: KEEP_ALIVE_MS,
  /** A Range of 1,024 parts is 20 KB of header. */
  maxHeaderSize: 64 * 1024,
  /** A request without Host is refused by the application, with the protocol's error body. */
  requireHostHeader: false,
}
const MINUTE_MS = 60_000
/** Small batches with pauses between them: the collector has time, and pulls have not. */
const SWEEP_BATCH = 200
const SWEEP_PAUSE_MS = 50

/** Composition root: log, metadata, storage, registry, application, listen. @throws whatever cannot be opened. */
export async function serve(config: Config): Promise<RunningServer> {
  const log = createLog(config.log)
  const db = await openIndex(config, log)
  const store = await openFilesystemStore({
    directory: join(config.data.dir, 'storage'),
    bufferBytes: config.storage.uploadMemoryBytes,
  })
  const metrics = createMetrics(VERSION)
  const app = createApp({
    registry: createRegistry({
      db,
      store,
      lifetimes: config.registry,
      requireBlobs: config.registry.requireBlobs,
      requireChildren: config.registry.requireChildren,
      allowChildDelete: config.registry.allowChildDelete,
    }),
    manifestMaxBytes: config.registry.manifestMaxBytes,
    tagListMax: config.registry.tagListMax,
    observe: record => {
      metrics.observeRequest(record)
      logRequest(log, record)
    },
    onError: error => log.warn({ err: error }, 'error outside a request'),
    ready: () => isReady(db, log),
  })
  const jobs = startJobs(backgroundJobs(config, db, store), (job, err) => log.warn({ job, err }, 'job failed'))
  const handle = app.callback()
  const server = createServer(HTTP_OPTIONS, (req, res) => {
    void handle(req, res)
  })
  answerRefusals(server, refusal => log.info(refusal, 'request refused'))
  // A push of many gigabytes over a thin line is no fault; a peer that sends nothing is.
  server.requestTimeout = 0
  server.setTimeout(config.http.idleTimeoutMs)
  const url = await listen(server, config.http.host, config.http.port)
  const metricsServer = config.metrics.enabled ? createServer(metricsHandler(metrics)) : undefined
  const metricsUrl =
    metricsServer === undefined ? undefined : await listen(metricsServer, config.metrics.host, config.metrics.port)
  log.info({ url, metricsUrl, dataDir: config.data.dir, index: db.driver, version: VERSION }, 'listening')
  return {
    url,
    ...(metricsUrl === undefined ? {} : { metricsUrl }),
    async close() {
      log.info('stopping: running transfers may finish')
      await stopServing(server, config.http.shutdownTimeoutMs)
      if (metricsServer !== undefined) await stopServing(metricsServer, 0)
      await jobs.stop()
      await store.close()
      await db.close()
      log.info('stopped')
    },
  }
}

async function openIndex(config: Config, log: Log): Promise<Database> {
  const { url, poolSize, statementTimeoutMs } = config.database
  const db =
    url === undefined
      ? await openEmbedded({ directory: join(config.data.dir, 'index') })
      : await openPostgres({ url, poolSize, statementTimeoutMs })
  const { applied } = await migrate(db)
  if (applied.length > 0) log.info({ applied }, 'index migrated')
  if (db.driver === 'embedded') await db.transaction(releaseAllUploads)
  return db
}

function backgroundJobs(config: Config, db: Database, store: BlobStore): Job[] {
  return [
    { name: 'expire uploads', everyMs: MINUTE_MS, run: () => expireUploads(db) },
    { name: 'collect', everyMs: MINUTE_MS, run: () => sweep(db, sweepOptions(config), () => delay(SWEEP_PAUSE_MS)) },
    { name: 'purge trash', everyMs: MINUTE_MS, run: () => purgeTrash(db, store) },
    {
      name: 'prune events',
      everyMs: 10 * MINUTE_MS,
      run: () => pruneEvents(db, config.registry.eventRetentionMs),
    },
  ]
}

function sweepOptions({ registry }: Config): SweepOptions {
  return { batch: SWEEP_BATCH, leaseMs: registry.leaseMs, trashGraceMs: registry.trashGraceMs }
}

async function isReady(db: Database, log: Log): Promise<boolean> {
  try {
    await db.query('select 1 as ready')
    return true
  } catch (err) {
    log.warn({ err }, 'not ready')
    return false
  }
}

function logRequest(log: Log, { error, route: _route, ...record }: RequestRecord): void {
  const durationMs = Math.round(record.durationMs * 100) / 100
  if (record.status < 500) log.info({ ...record, durationMs }, 'request')
  else log.error({ ...record, durationMs, err: error }, 'request failed')
}

function metricsHandler(metrics: Metrics): Parameters<typeof createServer>[1] {
  return (req, res) => {
    if (req.url !== '/metrics') {
      res.writeHead(404).end()
      return
    }
    metrics.render().then(
      text => res.writeHead(200, { 'Content-Type': metrics.contentType }).end(text),
      () => res.writeHead(500).end(),
    )
  }
}

async function listen(server: Server, host: string, port: number): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  server.once('error', reject)
  server.listen(port, host, resolve)
  await promise
  const address = server.address() as AddressInfo
  const shown = address.family === 'IPv6' ? `[${address.address}]` : address.address
  return `http://${shown}:${address.port}`
}

async function stopServing(server: Server, limitMs: number): Promise<void> {
  const closed = Promise.withResolvers<void>()
  server.close(() => closed.resolve())
  server.closeIdleConnections()
  const limit = setTimeout(() => server.closeAllConnections(), limitMs)
  await closed.promise
  clearTimeout(limit)
}
