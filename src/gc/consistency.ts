import { type Key, WALKED, type WalkedTable } from '../metadata/consistency.ts'
import type { Database } from '../metadata/database.ts'
import type { Turn } from './work.ts'

/** Where the walk is. */
export interface WalkCursor {
  readonly table: WalkedTable
  readonly after: Key
}

/** How many rows the walk looked at, and how many of each kind the collector would have missed. */
export type WalkProgress = Readonly<Record<'looked' | WalkedTable, number>>

/** What the walk works with. */
export interface Walk {
  readonly db: Database
  /** Rows of one statement at most. */
  readonly window: number
  /** Windows of one turn at most; the next turn goes on. */
  readonly windows: number
  /** What a row that nothing keeps is given before it is looked at, in milliseconds. */
  readonly leaseMs: number
  /** Runs between windows, and may slow the walk down or end it by throwing. */
  readonly pause: () => Promise<void>
  /** Told of rows that the collector would have missed. */
  readonly onDrift: (table: WalkedTable, count: number) => void
}

const ORDER = Object.keys(WALKED) as readonly WalkedTable[]
const START: Key = [0, 0]
const NOTHING: WalkProgress = { looked: 0, manifest: 0, link: 0, blob: 0 }

/**
 * One turn of a walk over all manifests, links and blobs, from where the run was: rows that nothing keeps and that the
 * collector would never look at are given back to it, and reported. Answers whether the walk is at its end.
 */
export async function walkIndex(walk: Walk, turn: Turn<WalkCursor, WalkProgress>): Promise<boolean> {
  let { table, after } = turn.cursor ?? { table: ORDER[0] ?? 'manifest', after: START }
  let done = turn.progress ?? NOTHING
  for (let count = 0; count < walk.windows; count++) {
    const { lost, end, looked } = await walkWindow(walk, table, after)
    done = { ...done, looked: done.looked + looked, [table]: done[table] + lost }
    const next = ORDER[ORDER.indexOf(table) + 1]
    if (end === undefined && next === undefined) {
      await turn.save({ table, after }, done)
      return true
    }
    if (end === undefined && next !== undefined) table = next
    after = end ?? START
    await turn.save({ table, after }, done)
    await walk.pause()
  }
  return false
}

async function walkWindow(
  { db, window, leaseMs, onDrift }: Walk,
  table: WalkedTable,
  after: Key,
): Promise<{ readonly lost: number; readonly looked: number; readonly end: Key | undefined }> {
  const { find, mend } = WALKED[table]
  const { lost, end, looked } = await find(db, after, window)
  const mended = lost.length === 0 ? 0 : await db.transaction(tx => mend(tx, lost, leaseMs))
  if (mended > 0) onDrift(table, mended)
  return { lost: mended, looked, end }
}
