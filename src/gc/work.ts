import { randomUUID } from 'node:crypto'
import type { Database } from '../metadata/database.ts'
import { type WorkName, keepWork, releaseWork, takeWork } from '../metadata/maintenance.ts'

/** A process that is dead for this long has lost its work to another. */
const LEASE_MS = 120_000

/** The part of a run that one process does in one turn. */
export interface Turn<C, P> {
  /** Where the run goes on, and what was counted so far; undefined at its beginning. */
  readonly cursor: C | undefined
  readonly progress: P | undefined
  /** Records how far the run is and goes on holding it. @throws WorkLost when another process has it. */
  readonly save: (cursor: C, progress: P) => Promise<void>
}

/** Another process has the run: this one was silent for too long. */
export class WorkLost extends Error {
  override readonly name = 'WorkLost'
}

/**
 * Does one turn of a piece of work, if no other process has it and there is something to do. `turn` answers whether the
 * run is at its end. What it throws is kept with the run, which goes on from its cursor at the next turn. Answers
 * whether there was a turn.
 */
export async function takeTurn<C, P>(
  db: Database,
  work: { readonly name: WorkName; readonly everyMs: number | undefined; readonly signal: AbortSignal },
  turn: (turn: Turn<C, P>) => Promise<boolean>,
): Promise<boolean> {
  const { name, everyMs, signal } = work
  const holder = randomUUID()
  const taken = await db.transaction(tx => takeWork(tx, { name, holder, leaseMs: LEASE_MS, everyMs }))
  if (taken === undefined) return false
  const release = async (isFinished: boolean, failure: string | undefined): Promise<void> =>
    await db.transaction(tx => releaseWork(tx, { name, holder, isFinished, failure }))
  try {
    const isFinished = await turn({
      cursor: (taken.cursor ?? undefined) as C | undefined,
      progress: (taken.progress ?? undefined) as P | undefined,
      async save(cursor, progress) {
        const kept = await db.transaction(tx => keepWork(tx, { name, holder, leaseMs: LEASE_MS, cursor, progress }))
        if (!kept) throw new WorkLost(`another process goes on with the ${name}`)
      },
    })
    await release(isFinished, undefined)
    return true
  } catch (error) {
    const failure = signal.aborted ? undefined : error instanceof Error ? error.message : String(error)
    await release(false, failure)
    throw error
  }
}
