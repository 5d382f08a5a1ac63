import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from 'prom-client'
import type { QuotaRow } from '../metadata/quotas.ts'
import type { StoreRow, TotalRow } from '../metadata/usage.ts'
import type { RequestRecord } from '../middleware/request-log.ts'
import { type CollectionMetrics, createCollectionMetrics } from './collection-metrics.ts'
import { type MirrorMetrics, createMirrorMetrics } from './mirror-metrics.ts'

/** How an upload session or one of its transfers went. */
export type UploadEvent = 'started' | 'finished' | 'cancelled' | 'failed'

/** Connections to the index; `waiting` counts those who wait for one. */
export interface IndexLoad {
  readonly open: number
  readonly busy: number
  readonly waiting: number
}

/** What the registry and its quotas use. */
export interface UsageFigures {
  readonly total: TotalRow
  readonly stores: readonly StoreRow[]
  readonly quotas: readonly Pick<QuotaRow, 'pattern' | 'measure' | 'limit_bytes' | 'used_bytes'>[]
}

/** The process's Prometheus metrics. Labels have few values: none is taken from what a client sends. */
export interface Metrics {
  observeRequest(record: RequestRecord): void
  observeUpload(event: UploadEvent): void
  /** A request that carries an upload's bytes began; call the answer when it ends. */
  transferBegan(): () => void
  blobReceived(bytes: number): void
  /** `kind` is the statement's first word, or `transaction` for a whole one. */
  observeIndex(kind: string, seconds: number, isFailure: boolean): void
  /** Read at each scrape. */
  watchIndex(load: () => IndexLoad): void
  /** Read at each scrape: whether each store, by its name, is this registry's. */
  watchStores(owned: () => ReadonlyMap<string, boolean>): void
  readonly collection: CollectionMetrics
  readonly mirrors: MirrorMetrics
  /** What is used now, in bytes and numbers; the figures of a turn replace those of the turn before. */
  setUsage(usage: UsageFigures): void
  /** A counter of usage was wrong and is repaired. */
  usageDrifted(): void
  readonly contentType: string
  render(): Promise<string>
}

const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])
const BLOB_ROUTE = '/v2/*name/blobs/:digest'
const REQUEST_SECONDS = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10, 60, 600]
const INDEX_SECONDS = [0.000_25, 0.001, 0.004, 0.016, 0.064, 0.25, 1, 4, 16]

/** Metrics of one process; `version` labels `berth_build_info`. */
export function createMetrics(version: string): Metrics {
  const register = new Registry()
  const registers = [register]
  collectDefaultMetrics({ register })
  const build = { name: 'berth_build_info', help: 'Version of this process', labelNames: ['version', 'node'] }
  new Gauge({ ...build, registers }).labels(version, process.version).set(1)
  const requests = new Counter({
    name: 'berth_http_requests_total',
    help: 'Finished requests',
    labelNames: ['method', 'route', 'status'],
    registers,
  })
  const seconds = new Histogram({
    name: 'berth_http_request_duration_seconds',
    help: 'Time from the request line to the end of the response',
    labelNames: ['method', 'route'],
    buckets: REQUEST_SECONDS,
    registers,
  })
  const counter = (name: string, help: string): Counter => new Counter({ name, help, registers })
  const sent = counter('berth_http_sent_bytes_total', 'Bytes sent, headers included')
  const received = counter('berth_http_received_bytes_total', 'Bytes of bodies received, as far as they were read')
  const blobSent = counter('berth_blob_sent_bytes_total', 'Bytes of answers to GET of a blob, headers included')
  const blobReceived = counter('berth_blob_received_bytes_total', 'Bytes of blobs received')
  const uploads = new Counter({
    name: 'berth_uploads_total',
    help: 'Upload sessions started, finished and cancelled, and requests of sessions that failed',
    labelNames: ['event'],
    registers,
  })
  for (const event of ['started', 'finished', 'cancelled', 'failed']) uploads.labels(event)
  const transfers = new Gauge({
    name: 'berth_upload_transfers',
    help: 'Requests that are sending bytes of an upload now',
    registers,
  })
  const transferSeconds = new Histogram({
    name: 'berth_upload_transfer_duration_seconds',
    help: 'Time of one request that sends bytes of an upload or closes it',
    buckets: REQUEST_SECONDS,
    registers,
  })
  const index = new Histogram({
    name: 'berth_index_duration_seconds',
    help: 'Time of statements, by their first word, and of whole transactions',
    labelNames: ['kind'],
    buckets: INDEX_SECONDS,
    registers,
  })
  const indexFailures = new Counter({
    name: 'berth_index_failures_total',
    help: 'Statements and transactions that failed',
    labelNames: ['kind'],
    registers,
  })
  const usage = usageGauges(registers)
  const drifts = counter('berth_usage_drifts_total', 'Counters of usage that were found wrong and repaired')
  return {
    ...usage,
    usageDrifted: () => drifts.inc(),
    observeRequest(record) {
      const method = METHODS.has(record.method) ? record.method : 'other'
      requests.labels(method, record.route, String(record.status)).inc()
      seconds.labels(method, record.route).observe(record.durationMs / 1000)
      sent.inc(record.bytes)
      received.inc(record.received)
      if (record.route === BLOB_ROUTE && method === 'GET') blobSent.inc(record.bytes)
    },
    observeUpload: event => uploads.labels(event).inc(),
    transferBegan() {
      transfers.inc()
      const end = transferSeconds.startTimer()
      return () => {
        transfers.dec()
        end()
      }
    },
    blobReceived: bytes => blobReceived.inc(bytes),
    observeIndex(kind, duration, isFailure) {
      index.labels(kind).observe(duration)
      if (isFailure) indexFailures.labels(kind).inc()
    },
    watchIndex(load) {
      new Gauge({
        name: 'berth_index_connections',
        help: 'Connections to the index, open and busy, and callers that wait for one',
        labelNames: ['state'],
        registers,
        collect() {
          for (const [state, count] of Object.entries(load())) this.labels(state).set(count)
        },
      })
    },
    watchStores(owned) {
      new Gauge({
        name: 'berth_store_owned',
        help: 'Whether a store is this registry’s; where it is not, nothing is deleted there',
        labelNames: ['store'],
        registers,
        collect() {
          for (const [store, isOwned] of owned()) this.labels(store).set(isOwned ? 1 : 0)
        },
      })
    },
    collection: createCollectionMetrics(register),
    mirrors: createMirrorMetrics(register),
    contentType: register.contentType,
    render: () => register.metrics(),
  }
}

function usageGauges(registers: Registry[]): Pick<Metrics, 'setUsage'> {
  const gauge = (name: string, help: string, labelNames: string[] = []): Gauge =>
    new Gauge({ name, help, labelNames, registers })
  const total = gauge('berth_usage_bytes', 'Bytes that repositories use, each blob once a repository')
  const objects = gauge('berth_usage_objects', 'Repositories, manifests and tags', ['kind'])
  const stored = gauge('berth_store_bytes', 'Bytes that lie in a store: of blobs, and of the trash', ['store', 'kind'])
  const blobs = gauge('berth_store_blobs', 'Blobs that lie in a store', ['store'])
  const used = gauge('berth_quota_used_bytes', 'Bytes that the repositories of a quota use', ['pattern', 'measure'])
  const limit = gauge('berth_quota_limit_bytes', 'Bytes that the repositories of a quota may use', [
    'pattern',
    'measure',
  ])
  return {
    setUsage(figures) {
      total.set(figures.total.bytes)
      for (const kind of ['repositories', 'manifests', 'tags'] as const) objects.labels(kind).set(figures.total[kind])
      for (const { store, blobs: count, bytes, trash_bytes: trash } of figures.stores) {
        stored.labels(store, 'blobs').set(bytes)
        stored.labels(store, 'trash').set(trash)
        blobs.labels(store).set(count)
      }
      used.reset()
      limit.reset()
      for (const { pattern, measure, used_bytes: bytes, limit_bytes: most } of figures.quotas) {
        used.labels(pattern, measure).set(bytes)
        limit.labels(pattern, measure).set(most)
      }
    },
  }
}
