import { setTimeout as delay } from 'node:timers/promises'
import type { Config } from './config.ts'
import { checkQuotas, checkUsage, foldAllUsage, forgetGoneQuotas, leaveAllQuotas } from './gc/usage.ts'
import type { Job } from './jobs/schedule.ts'
import type { Log } from './log.ts'
import type { Database } from './metadata/database.ts'
import { allQuotas, countQuotas } from './metadata/quotas.ts'
import { storeUsage, totalUsage } from './metadata/usage.ts'
import type { Metrics } from './metrics/metrics.ts'

const SECOND_MS = 1000
const MINUTE_MS = 60 * SECOND_MS
const DAY_MS = 24 * 60 * MINUTE_MS
/** Between the checks of two repositories. */
const CHECK_PAUSE_MS = 50

/** What keeps the counters of usage, quotas and their metrics up to date. */
export function usageJobs(config: Config, db: Database, log: Log, metrics: Metrics): Job[] {
  const warn = (wrong: object): void => {
    metrics.usageDrifted()
    log.warn(wrong, 'usage was counted wrongly and is repaired')
  }
  return [
    { name: 'fold usage', everyMs: 5 * SECOND_MS, run: signal => foldAllUsage(db, signal) },
    { name: 'leave quotas', everyMs: MINUTE_MS, run: signal => leaveAllQuotas(db, signal) },
    { name: 'count quotas', everyMs: MINUTE_MS, run: signal => countQuotas(db, signal) },
    { name: 'forget quotas', everyMs: MINUTE_MS, run: signal => forgetGoneQuotas(db, signal) },
    {
      name: 'check usage',
      everyMs: MINUTE_MS,
      run: async signal => {
        try {
          await checkUsage(db, {
            everyMs: DAY_MS,
            keepDays: Math.ceil(config.registry.usageHistoryMs / DAY_MS),
            onDrift: warn,
            onFailure: (repositoryId, err) => log.warn({ repositoryId, err }, 'usage of a repository was not checked'),
            pause: () => delay(CHECK_PAUSE_MS, undefined, { signal }),
          })
        } finally {
          if (!signal.aborted) await checkQuotas(db, DAY_MS, (quota, bytes) => warn({ quota, bytes }))
        }
      },
    },
    { name: 'measure usage', everyMs: MINUTE_MS, run: () => measureUsage(db, metrics) },
  ]
}

async function measureUsage(db: Database, metrics: Metrics): Promise<void> {
  const total = await totalUsage(db)
  metrics.setUsage({ total, stores: await storeUsage(db), quotas: await allQuotas(db) })
}
