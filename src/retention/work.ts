import type { Database, Transaction } from '../metadata/database.ts'
import { DatabaseUnavailable } from '../metadata/database.ts'
import { type PolicyRow, holdPolicy } from '../metadata/retention-policies.ts'
import { type RunRow, claimRun, failRun, finishRun, holdRun, releaseRun } from '../metadata/retention-runs.ts'
import type { Lifetimes } from '../registry/context.ts'
import type { PlanRules } from './plan.ts'
import type { KeepRule } from './rules.ts'

/** What retention works with. */
export interface RetentionContext {
  readonly db: Database
  readonly lifetimes: Lifetimes
  /** Writes the pulls that this process has counted, so that they count. */
  readonly flushPulls: () => Promise<void>
}

/** A process that stops while it works off a run is followed by another after this. */
const LEASE_MS = 5 * 60_000
/** A run that this many processes have begun and none has ended ends itself. */
const ATTEMPTS = 20

/** What ends the work on a run without it being over, or with a reason that stands in the run. */
class RunEnded extends Error {
  override readonly name = 'RunEnded'
  readonly reason: string | undefined

  constructor(reason?: string) {
    super(reason ?? 'another process works on this run')
    this.reason = reason
  }
}

/** A run that this process works off. */
export interface Work {
  readonly context: RetentionContext
  readonly run: RunRow
  readonly signal: AbortSignal
  /**
   * A transaction of the run: nothing in it happens unless the run is still this process's, and its policy what it was
   * when the run was asked for.
   */
  readonly transaction: <T>(work: (tx: Transaction, policy: Policy) => Promise<T>) => Promise<T>
}

/** A policy as the work needs it. */
export interface Policy extends PlanRules {
  readonly name: string
  readonly pattern: string
  readonly maxShare: number
}

/** Works off one run that waits, by its `steps`. False where none waits. Ends by an error when `signal` fires. */
export async function workOffRun(
  context: RetentionContext,
  steps: readonly ((work: Work) => Promise<void>)[],
  signal: AbortSignal,
): Promise<boolean> {
  const { db } = context
  const run = await db.transaction(tx => claimRun(tx, LEASE_MS))
  if (run === undefined) return false
  try {
    if (run.epoch > ATTEMPTS) throw new RunEnded('it was begun too often and never came to its end')
    const work: Work = { context, run, signal, transaction: action => inRun(db, run, action) }
    for (const step of steps) await step(work)
    await work.transaction(tx => finishRun(tx, run.id))
  } catch (error) {
    if (error instanceof RunEnded) {
      const { reason } = error
      if (reason !== undefined) await db.transaction(tx => failRun(tx, run, reason))
    } else if (signal.aborted || error instanceof DatabaseUnavailable) {
      await db.transaction(tx => releaseRun(tx, run))
      throw error
    } else {
      await db.transaction(tx => failRun(tx, run, error instanceof Error ? error.message : String(error)))
      throw error
    }
  }
  return true
}

async function inRun<T>(
  db: Database,
  run: RunRow,
  action: (tx: Transaction, policy: Policy) => Promise<T>,
): Promise<T> {
  return await db.transaction(async tx => {
    if (!(await holdRun(tx, run, LEASE_MS))) throw new RunEnded()
    const { policy_id: id, policy_revision: revision } = run
    const row = id === null ? undefined : await holdPolicy(tx, id, revision)
    if (row === undefined) throw new RunEnded('the policy was changed or removed: nothing more was done')
    return await action(tx, policyOf(row))
  })
}

function policyOf({ name, pattern, tags, rules, untagged, max_share: maxShare }: PolicyRow): Policy {
  return { name, pattern, tags, rules: rules as readonly KeepRule[], untagged, maxShare }
}
