import type { Database, Transaction } from '../metadata/database.ts'
import { DatabaseUnavailable } from '../metadata/database.ts'
import { setSyncProgress } from '../metadata/sync-items.ts'
import { type SyncRunRow, claimSyncRun, endSyncRun, holdSyncRun, releaseSyncRun } from '../metadata/sync-runs.ts'
import { copyListed } from './copy-run.ts'
import type { Image, Moved } from './copy-image.ts'
import { listImages } from './list-run.ts'
import type { Sides, Sync, Work } from './work.ts'

/** How the lease of a run lives, in milliseconds. */
export interface SyncLease {
  /** A process that stops is followed by another after this. */
  readonly leaseMs: number
  readonly renewMs: number
  /** It stops this long before its lease ends by its own clock. */
  readonly marginMs: number
}

const LEASE: SyncLease = { leaseMs: 20_000, renewMs: 3_000, marginMs: 5_000 }

/** What a sync works with. */
export interface SyncContext {
  readonly db: Database
  readonly sync: Sync
  /** Opens both sides; what they do ends when `signal` fires. */
  readonly open: (signal: AbortSignal) => Sides
  /** Told what came of a run that this process worked off. */
  readonly onEnd: (run: number, error: string | undefined) => void
  readonly lease?: SyncLease
}

/** The run is no longer this process's. */
class RunGone extends Error {
  override readonly name = 'RunGone'
}

/** A run that this many processes have begun and none has ended ends itself. */
const ATTEMPTS = 20

/** Works off the run of a sync that waits. Ends by an error when `signal` fires. */
export async function workOffRun(context: SyncContext, signal: AbortSignal): Promise<void> {
  const { db, sync, lease = LEASE, onEnd } = context
  const claimed = performance.now()
  const run = await db.transaction(tx => claimSyncRun(tx, sync.name, lease.leaseMs))
  if (run === undefined) return
  const held = holdRun(db, run, lease, claimed)
  try {
    if (run.epoch > ATTEMPTS) throw new Error('it was begun too often and never came to its end')
    const work = { db, sync, run, ...held, signal: AbortSignal.any([signal, held.signal]) }
    await using sides = context.open(work.signal)
    await listImages({ ...work, sides })
    await copyListed({ ...work, sides })
    await held.transaction(tx => endSyncRun(tx, run))
    onEnd(run.id, undefined)
  } catch (error) {
    const isGone = error instanceof RunGone || held.signal.aborted
    if (!isGone && !signal.aborted && !(error instanceof DatabaseUnavailable)) {
      const reason = error instanceof Error ? error.message : String(error)
      await db.transaction(tx => endSyncRun(tx, run, reason))
      onEnd(run.id, reason)
    } else if (!isGone) throw error
  } finally {
    await held.end()
    // Also of one that was stopped: the next may begin. A failure here costs it a wait, and must not hide the outcome.
    await db.transaction(tx => releaseSyncRun(tx, run)).catch(() => undefined)
  }
}

interface HeldRun extends Pick<Work, 'signal' | 'underWay' | 'transaction'> {
  end(): Promise<void>
}

/** Renews the lease of a run until `end`, and tells how far it is. */
function holdRun(db: Database, run: SyncRunRow, { leaseMs, renewMs, marginMs }: SyncLease, claimed: number): HeldRun {
  const lost = new AbortController()
  const underWay = new Map<Image, Moved>()
  // Since before the database was asked: its clock started the lease later than that, never earlier.
  let renewed = claimed
  const transaction = async <T>(work: (tx: Transaction) => Promise<T>): Promise<T> => {
    const asked = performance.now()
    const outcome = await db.transaction(async tx => {
      if (!(await holdSyncRun(tx, run, leaseMs))) throw new RunGone('the run was stopped or taken over')
      return await work(tx)
    })
    renewed = Math.max(renewed, asked)
    return outcome
  }
  const renew = async (): Promise<void> => {
    try {
      await transaction(async tx => {
        const progress = [...underWay].map(([{ repository, tag }, { bytes }]) => ({ repository, tag, bytes }))
        await setSyncProgress(tx, run.id, progress)
      })
    } catch (error) {
      if (error instanceof RunGone) lost.abort(error)
    }
  }
  let renewing: Promise<void> | undefined
  const timer = setInterval(() => {
    if (performance.now() - renewed > leaseMs - marginMs) lost.abort(new RunGone('the lease could not be renewed'))
    else renewing ??= renew().finally(() => (renewing = undefined))
  }, renewMs)
  return {
    signal: lost.signal,
    underWay,
    transaction,
    async end() {
      clearInterval(timer)
      await renewing
    },
  }
}
