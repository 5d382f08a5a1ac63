import type { Database } from '../metadata/database.ts'
import { leaveBatch, leavingRepositories } from '../metadata/quota-leaving.ts'
import { removeQuotaRests } from '../metadata/quotas.ts'
import * as checks from '../metadata/usage-check.ts'
import { foldUsage } from '../metadata/usage-fold.ts'
import { inBatches } from './in-batches.ts'

const FOLD_BATCH = 500
const PRUNE_BATCH = 1000

/** Puts changes of usage into the counters, in batches. Answers how many. Ends between batches when `signal` fires. */
export async function foldAllUsage(db: Database, signal?: AbortSignal): Promise<number> {
  let folded = 0
  for (;;) {
    signal?.throwIfAborted()
    const batch = await db.transaction(tx => foldUsage(tx, FOLD_BATCH))
    folded += batch
    if (batch < FOLD_BATCH) return folded
  }
}

/** Tells physical quotas of the links of repositories that were deleted, in batches. Ends between batches when `signal` fires. */
export async function leaveAllQuotas(db: Database, signal?: AbortSignal): Promise<void> {
  let last = 0
  for (;;) {
    const ids = await db.transaction(tx => leavingRepositories(tx, last, PRUNE_BATCH))
    if (ids.length === 0) return
    for (const id of ids) {
      last = id
      while (await db.transaction(tx => leaveBatch(tx, id))) signal?.throwIfAborted()
    }
  }
}

/** Removes, in batches, what was counted for quotas that are gone. Ends between batches when `signal` fires. */
export async function forgetGoneQuotas(db: Database, signal?: AbortSignal): Promise<number> {
  return await inBatches(db, PRUNE_BATCH, removeQuotaRests, signal)
}

/** How counters are checked. */
export interface UsageCheckOptions {
  /** A repository is looked at again after this, in milliseconds. */
  readonly everyMs: number
  /** For how many days figures are kept. */
  readonly keepDays: number
  /** Told of what was counted wrongly, and is repaired now. */
  readonly onDrift: (drift: checks.Drift) => void
  /** Told of a repository that could not be checked: it is tried again later, and the others do not wait for it. */
  readonly onFailure: (repositoryId: number, error: unknown) => void
  /** Runs between repositories; may slow the check down, or end it by throwing. */
  readonly pause: () => Promise<void>
}

/**
 * Compares the counters of repositories with the rows they count, one after the other, repairs what is wrong, and keeps
 * a day's figures. A repository from before there were counters is counted by it. Any number of processes share the work. Answers how many repositories were looked at.
 */
export async function checkUsage(db: Database, options: UsageCheckOptions): Promise<number> {
  await db.transaction(checks.insertMissingCounters)
  for (let looked = 0; ; looked++) {
    const checked = await checkNext(db, options)
    if (checked === 'none') {
      while ((await db.transaction(tx => checks.pruneDays(tx, options.keepDays, PRUNE_BATCH))) === PRUNE_BATCH);
      return looked
    }
    if (checked !== undefined) {
      const { repository: _repository, ...wrong } = checked
      if (Object.values(wrong).some(value => value !== 0)) options.onDrift(checked)
    }
    await options.pause()
  }
}

/** Answers the drift of a repository; undefined where it was counted for the first time, or could not be checked. */
async function checkNext(
  db: Database,
  { everyMs, onFailure }: UsageCheckOptions,
): Promise<checks.Drift | 'none' | undefined> {
  let picked: number | undefined
  try {
    return await db.transaction(async tx => {
      picked = undefined
      const next = await checks.lockUnchecked(tx, everyMs)
      if (next === undefined) return 'none'
      const { repositoryId, isCounted } = next
      picked = repositoryId
      await checks.forgetQuotas(tx, repositoryId)
      if (!isCounted) await checks.discountHiddenLinks(tx, repositoryId)
      const drift = await checks.checkRepository(tx, repositoryId)
      return isCounted ? drift : undefined
    })
  } catch (error) {
    const failing = picked
    if (failing === undefined) throw error
    await db.transaction(tx => checks.deferCheck(tx, failing, everyMs))
    onFailure(failing, error)
    return undefined
  }
}

/**
 * Compares what is left of quotas that were not checked for `everyMs` with what their repositories use, and repairs it.
 * `onDrift` is told, in bytes.
 */
export async function checkQuotas(
  db: Database,
  everyMs: number,
  onDrift: (quotaId: number, bytes: number) => void,
): Promise<void> {
  for (const id of await checks.uncheckedQuotas(db, everyMs)) {
    const drift = await db.transaction(tx => checks.checkQuota(tx, id))
    if (drift !== 0) onDrift(id, drift)
  }
}
