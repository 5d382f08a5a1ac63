import type { Database } from '../metadata/database.ts'
import * as rows from '../metadata/drain.ts'

/** Rows of one kind in one transaction at most. */
const BATCH = 500
/** A writer that goes on without its session stops well within this. */
const UPLOAD_GRACE_MS = 60_000

/**
 * Removes, in batches, the rows of repositories that were deleted more than `graceMs` ago; the sweep takes their blobs.
 * Safe in several processes at once and after a crash: what is left is taken up by the next run. Answers how many
 * repositories went. `pause` runs between batches and may slow it down, or end it by throwing.
 */
export async function drainRepositories(db: Database, graceMs: number, pause: () => Promise<void>): Promise<number> {
  let drained = 0
  let last = 0
  for (;;) {
    const id = await db.transaction(tx => rows.beginDrain(tx, graceMs, last))
    if (id === undefined) return drained
    last = id
    if (await drain(db, id, pause)) drained += 1
  }
}

/** Empties one repository and removes it; false where another process is at it, or holds a row of it. */
async function drain(db: Database, id: number, pause: () => Promise<void>): Promise<boolean> {
  for (;;) {
    const outcome = await db.transaction(async tx => {
      if (!(await rows.lockDraining(tx, id))) return 'held'
      const removed =
        (await rows.drainTags(tx, id, BATCH)) ||
        (await rows.drainManifests(tx, id, BATCH)) ||
        (await rows.drainLinks(tx, id, BATCH)) ||
        (await rows.drainUploads(tx, id, BATCH, UPLOAD_GRACE_MS))
      if (removed > 0) return 'more'
      return (await rows.endDrain(tx, id)) ? 'gone' : 'held'
    })
    if (outcome !== 'more') return outcome === 'gone'
    await pause()
  }
}
