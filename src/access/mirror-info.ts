import type { MirrorTotals } from '../metadata/mirror-figures.ts'
import type { MirrorView } from './actor.ts'

/** What all processes together counted of a mirror: see `mirror/stats.ts`. Bytes, milliseconds. */
export interface MirrorFigures {
  readonly since: Date | null
  readonly manifestHits: number
  readonly manifestMisses: number
  readonly stale: number
  readonly blobHits: number
  readonly blobMisses: number
  readonly savedBytes: number
  readonly upstreamBytes: number
  readonly requests: number
  /** Of an upstream's answers, until they began; null without any. */
  readonly meanLatencyMs: number | null
  /** By kind. */
  readonly failures: Readonly<Record<string, number>>
  readonly evicted: number
  readonly evictedBytes: number
}

/** A mirror as administrators see it. */
export interface MirrorInfo extends MirrorView {
  readonly figures: MirrorFigures
  /** What the upstream said last about our quota there. */
  readonly rate: { readonly limit: number | null; readonly remaining: number | null; readonly at: Date } | null
  readonly size: {
    readonly repositories: number
    readonly manifests: number
    /** Each blob once a repository, now. */
    readonly logicalBytes: number
    /** Each blob once, when that was measured: where there is a limit, and it may be near. */
    readonly bytes: number | null
    readonly measuredAt: Date | null
  }
}

/** A mirror with what was counted of it, where anything was. */
export function presentMirror(view: MirrorView, totals: MirrorTotals | undefined): MirrorInfo {
  const counts = totals?.counts ?? {}
  const count = (name: string): number => counts[name] ?? 0
  const failures = Object.entries(counts).flatMap(([name, amount]) =>
    name.startsWith('failures.') ? [[name.slice('failures.'.length), amount] as const] : [],
  )
  return {
    ...view,
    figures: {
      since: totals?.since ?? null,
      manifestHits: count('manifestHits'),
      manifestMisses: count('manifestMisses'),
      stale: count('stale'),
      blobHits: count('blobHits'),
      blobMisses: count('blobMisses'),
      savedBytes: count('savedBytes'),
      upstreamBytes: count('upstreamBytes'),
      requests: count('requests'),
      meanLatencyMs: count('requests') === 0 ? null : Math.round(count('requestMs') / count('requests')),
      failures: Object.fromEntries(failures),
      evicted: count('evicted'),
      evictedBytes: count('evictedBytes'),
    },
    rate:
      totals === undefined || totals.rate_at === null
        ? null
        : { limit: totals.rate_limit, remaining: totals.rate_remaining, at: totals.rate_at },
    size: {
      repositories: totals?.repositories ?? 0,
      manifests: totals?.manifests ?? 0,
      logicalBytes: totals?.logical_bytes ?? 0,
      bytes: totals?.bytes ?? null,
      measuredAt: totals?.measured_at ?? null,
    },
  }
}
