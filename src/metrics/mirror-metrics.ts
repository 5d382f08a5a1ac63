import { Counter, Gauge, Histogram, type Registry } from 'prom-client'

/** How one mirror stands in this process. */
export interface MirrorReading {
  readonly prefix: string
  /** What was counted since the process began, by name. */
  readonly totals: ReadonlyMap<string, number>
  /** Pulls that the upstream says are left to us, and of how many. */
  readonly rate: { readonly limit: number | undefined; readonly remaining: number | undefined } | undefined
  readonly isLeftAlone: boolean
  readonly maxBytes: number | undefined
}

/** What mirrors tell Prometheus. */
export interface MirrorMetrics {
  /** An upstream began to answer after so many seconds. */
  answered(prefix: string, seconds: number): void
  /** What a mirror's copies take, each blob once. Bytes. */
  sized(prefix: string, bytes: number): void
  /** Read at each scrape. */
  watch(read: () => readonly MirrorReading[]): void
}

const ANSWER_SECONDS = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30]
const FAILURES = ['absent', 'denied', 'limited', 'failed', 'refused']

/** Counters that are counted elsewhere: the name of each count, and the labels it stands under. */
const COUNTERS: readonly {
  readonly name: string
  readonly help: string
  readonly counts: Readonly<Record<string, Readonly<Record<string, string>>>>
}[] = [
  {
    name: 'berth_mirror_pulls_total',
    help: 'Manifests and blobs that were asked of a mirror: served from here (hit), fetched (miss), maybe out of date (stale)',
    counts: {
      manifestHits: { kind: 'manifest', outcome: 'hit' },
      manifestMisses: { kind: 'manifest', outcome: 'miss' },
      stale: { kind: 'manifest', outcome: 'stale' },
      blobHits: { kind: 'blob', outcome: 'hit' },
      blobMisses: { kind: 'blob', outcome: 'miss' },
    },
  },
  {
    name: 'berth_mirror_saved_bytes_total',
    help: 'Bytes of blobs that clients got without asking the upstream',
    counts: { savedBytes: {} },
  },
  {
    name: 'berth_mirror_upstream_bytes_total',
    help: 'Bytes of content that upstreams sent',
    counts: { upstreamBytes: {} },
  },
  {
    name: 'berth_mirror_upstream_failures_total',
    help: 'Requests that upstreams did not answer as asked',
    counts: Object.fromEntries(FAILURES.map(kind => [`failures.${kind}`, { kind }])),
  },
  {
    name: 'berth_mirror_evicted_total',
    help: 'Manifests, and blobs without one, that went to make room',
    counts: { evicted: {} },
  },
  {
    name: 'berth_mirror_evicted_bytes_total',
    help: 'Bytes that went with them',
    counts: { evictedBytes: {} },
  },
]

/** Registers them. The label `mirror` is the prefix of one that an administrator set up. */
export function createMirrorMetrics(register: Registry): MirrorMetrics {
  const registers = [register]
  const seconds = new Histogram({
    name: 'berth_mirror_upstream_request_duration_seconds',
    help: 'Time until an upstream begins to answer',
    labelNames: ['mirror'],
    buckets: ANSWER_SECONDS,
    registers,
  })
  const bytes = new Gauge({
    name: 'berth_mirror_bytes',
    help: 'Bytes of the copies of a mirror whose size is limited, each blob once, as last measured',
    labelNames: ['mirror'],
    registers,
  })
  return {
    answered: (prefix, duration) => seconds.labels(prefix).observe(duration),
    sized: (prefix, size) => bytes.labels(prefix).set(size),
    watch(read) {
      for (const { name, help, counts } of COUNTERS) {
        const labels = Object.keys(Object.values(counts)[0] ?? {})
        new Counter({
          name,
          help,
          labelNames: ['mirror', ...labels],
          registers,
          collect() {
            this.reset()
            for (const { prefix, totals } of read()) {
              for (const [count, values] of Object.entries(counts)) {
                this.inc({ mirror: prefix, ...values }, totals.get(count) ?? 0)
              }
            }
          },
        })
      }
      watchGauge(registers, 'berth_mirror_left_alone', 'Whether the upstream is not asked for a while', read, reading =>
        reading.isLeftAlone ? 1 : 0,
      )
      watchGauge(
        registers,
        'berth_mirror_rate_limit',
        'Pulls that the upstream allows in its window',
        read,
        ({ rate }) => rate?.limit,
      )
      watchGauge(
        registers,
        'berth_mirror_rate_limit_remaining',
        'Pulls that the upstream says are left',
        read,
        ({ rate }) => rate?.remaining,
      )
      watchGauge(
        registers,
        'berth_mirror_max_bytes',
        'Bytes that the copies of a mirror may take',
        read,
        ({ maxBytes }) => maxBytes,
      )
    },
  }
}

function watchGauge(
  registers: Registry[],
  name: string,
  help: string,
  read: () => readonly MirrorReading[],
  value: (reading: MirrorReading) => number | undefined,
): void {
  new Gauge({
    name,
    help,
    labelNames: ['mirror'],
    registers,
    collect() {
      this.reset()
      for (const reading of read()) {
        const now = value(reading)
        if (now !== undefined) this.labels(reading.prefix).set(now)
      }
    },
  })
}
