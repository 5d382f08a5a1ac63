import { Counter, Gauge, Histogram, type Registry } from 'prom-client'

/** The kinds of things that are collected. `object`: stored bytes that were deleted. */
export type CollectedKind = 'upload' | 'manifest' | 'link' | 'blob' | 'object'

/** What waits for the collector. */
export interface QueueGauges {
  readonly due: number
  readonly oldestDueAt: Date | null
  readonly trashBytes: number
  readonly purgeable: number
  readonly oldestPurgeableAt: Date | null
  readonly damaged: number
}

/** What collection and verification tell Prometheus. */
export interface CollectionMetrics {
  /** A piece of background work ended. */
  ran(work: string, seconds: number, isFailure: boolean): void
  collected(kind: CollectedKind, count: number): void
  /** Bytes that lost their last name, and bytes that were deleted. */
  trashed(bytes: number): void
  freed(bytes: number): void
  /** Keys that the store could not delete. */
  stuck(keys: number): void
  /** Rows of a table that the collector would have missed. */
  drifted(table: string, rows: number): void
  verified(verdict: 'sound' | 'damaged' | 'missing', bytes: number): void
  queued(queue: QueueGauges): void
}

const RUN_SECONDS = [0.001, 0.01, 0.1, 1, 10, 60, 600, 3_600]
const KINDS: readonly CollectedKind[] = ['upload', 'manifest', 'link', 'blob', 'object']

/** Registers them. */
export function createCollectionMetrics(register: Registry): CollectionMetrics {
  const registers = [register]
  const counter = (name: string, help: string, labelNames: string[] = []): Counter =>
    new Counter({ name, help, labelNames, registers })
  const gauge = (name: string, help: string): Gauge => new Gauge({ name, help, registers })
  const runs = counter('berth_background_runs_total', 'Turns of background work that ended', ['work', 'outcome'])
  const seconds = new Histogram({
    name: 'berth_background_run_duration_seconds',
    help: 'Time of one turn of background work',
    labelNames: ['work'],
    buckets: RUN_SECONDS,
    registers,
  })
  const collected = counter('berth_collected_total', 'Things collected; object: stored bytes deleted', ['kind'])
  for (const kind of KINDS) collected.labels(kind)
  const trashed = counter('berth_trashed_bytes_total', 'Bytes of blobs that lost their last link')
  const freed = counter('berth_freed_bytes_total', 'Bytes deleted from the store')
  const stuck = counter('berth_purge_failures_total', 'Keys that the store could not delete when they were due')
  const drift = counter('berth_index_drift_total', 'Rows the collector would have missed, found by the walk', ['table'])
  for (const table of ['manifest', 'link', 'blob']) drift.labels(table)
  const verified = counter('berth_verified_blobs_total', 'Blobs read again and compared with their digest', ['verdict'])
  for (const verdict of ['sound', 'damaged', 'missing']) verified.labels(verdict)
  const verifiedBytes = counter('berth_verified_bytes_total', 'Bytes of blobs found sound')
  const due = gauge('berth_collection_due_rows', 'Manifests and links that wait to be looked at')
  const oldestDue = gauge('berth_collection_oldest_due_seconds', 'How long the longest of them waits')
  const trashBytes = gauge('berth_trash_bytes', 'Bytes that nothing names and that are not deleted yet')
  const purgeable = gauge('berth_purge_queue_keys', 'Keys in the trash whose grace is over')
  const oldestPurgeable = gauge('berth_purge_oldest_seconds', 'How long the longest of them waits')
  const damaged = gauge('berth_damaged_blobs', 'Blobs that are kept out of sight until they are pushed again')
  return {
    ran(work, duration, isFailure) {
      runs.labels(work, isFailure ? 'failed' : 'done').inc()
      seconds.labels(work).observe(duration)
    },
    collected: (kind, count) => collected.labels(kind).inc(count),
    trashed: bytes => trashed.inc(bytes),
    freed: bytes => freed.inc(bytes),
    stuck: keys => stuck.inc(keys),
    drifted: (table, rows) => drift.labels(table).inc(rows),
    verified(verdict, bytes) {
      verified.labels(verdict).inc()
      verifiedBytes.inc(bytes)
    },
    queued(queue) {
      due.set(queue.due)
      oldestDue.set(secondsSince(queue.oldestDueAt))
      trashBytes.set(queue.trashBytes)
      purgeable.set(queue.purgeable)
      oldestPurgeable.set(secondsSince(queue.oldestPurgeableAt))
      damaged.set(queue.damaged)
    },
  }
}

function secondsSince(time: Date | null): number {
  return time === null ? 0 : Math.max(0, Date.now() - time.getTime()) / 1000
}
