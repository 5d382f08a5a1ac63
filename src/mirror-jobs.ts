import type { Job } from './jobs/schedule.ts'
import type { Log } from './log.ts'
import type { Database } from './metadata/database.ts'
import { addMirrorFigures } from './metadata/mirror-figures.ts'
import type { MirrorMetrics } from './metrics/mirror-metrics.ts'
import type { MirrorFleet } from './mirror-fleet.ts'
import type { MirrorStats, TakenStats } from './mirror/stats.ts'
import type { RegistryContext } from './registry/context.ts'
import { evict } from './registry/eviction.ts'
import type { MirroredUses } from './registry/mirrored-uses.ts'

const SECOND_MS = 1000
const HOUR_MS = 3_600 * SECOND_MS

/** What the background work of mirrors works with. */
export interface MirrorJobsContext {
  readonly context: RegistryContext
  readonly fleet: MirrorFleet
  readonly uses: MirroredUses
  readonly metrics: MirrorMetrics
  readonly log: Log
  readonly keepMs: number
  readonly spareMs: number
}

/** Keeps the mirrors of this process up to date, and their copies within their bounds. */
export function mirrorJobs({ context, fleet, uses, metrics, log, keepMs, spareMs }: MirrorJobsContext): Job[] {
  const full = new Set<string>()
  return [
    { name: 'look for mirrors', everyMs: 2 * SECOND_MS, run: () => fleet.refresh() },
    { name: 'write mirror figures', everyMs: 10 * SECOND_MS, run: () => fleet.flush() },
    { name: 'forget mirrored uses', everyMs: HOUR_MS, run: signal => uses.prune(keepMs, signal) },
    {
      name: 'make room in mirrors',
      everyMs: 10 * SECOND_MS,
      async run(signal) {
        for (const { config, mirror, version } of fleet.running) {
          const { prefix, maxBytes } = config
          if (maxBytes === undefined) continue
          const isRemovable = version !== undefined
          const done = await evict(context, { prefix, maxBytes, isRemovable }, { spareMs, signal })
          if (done.measuredBytes !== undefined) metrics.sized(prefix, done.measuredBytes)
          mirror.stats.add('evicted', done.evicted)
          mirror.stats.add('evictedBytes', done.bytes)
          if (done.evicted > 0) log.info({ mirror: prefix, copies: done.evicted, bytes: done.bytes }, 'made room')
          if (done.isFull && !full.has(prefix)) {
            log.warn({ mirror: prefix, maxBytes }, 'a mirror takes more than it may: everything else was used just now')
          }
          if (done.isFull) full.add(prefix)
          else full.delete(prefix)
        }
      },
    },
  ]
}

/** Adds what this process counted of its mirrors to what all of them did. What cannot be written is kept for the next time. */
export async function writeFigures(
  db: Database,
  mirrors: readonly { prefix: string; stats: MirrorStats }[],
): Promise<void> {
  const taken: { readonly prefix: string; readonly stats: MirrorStats; readonly figures: TakenStats }[] = []
  for (const { prefix, stats } of mirrors) {
    const figures = stats.take()
    if (figures !== undefined) taken.push({ prefix, stats, figures })
  }
  if (taken.length === 0) return
  try {
    await db.transaction(tx =>
      addMirrorFigures(
        tx,
        taken.map(({ prefix, figures: { counts, failures, rate } }) => ({
          prefix,
          counts,
          failures,
          rate: rate && { limit: rate.limit ?? null, remaining: rate.remaining ?? null, at: rate.at },
        })),
      ),
    )
  } catch (error) {
    for (const { stats, figures } of taken) stats.giveBack(figures)
    throw error
  }
}
