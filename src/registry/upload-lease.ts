import { setTimeout as delay } from 'node:timers/promises'
import { RegistryError } from '../oci/errors.ts'
import type { Database } from '../metadata/database.ts'
import { type UploadRow, keepUpload, releaseUpload, takeUpload } from '../metadata/uploads.ts'

/** How long a writer may go without renewing before another may take over. */
const LEASE_MS = 12_000
const RENEW_MS = 3_000
/** The writer stops this long before its lease ends by its own monotonic clock. */
const MARGIN_MS = 4_000
const WAIT_MS = 20_000
const POLL_MS = 100

/** The exclusive right to write to one upload session. */
export interface UploadLease {
  readonly row: UploadRow
  /** Fires when the right is lost or can no longer be renewed in time. */
  readonly signal: AbortSignal
}

/**
 * Runs `work` as the only writer of an upload, across processes: the lease is taken by compare-and-set, renewed while
 * `work` runs, and let go at its end. Waits up to 20 s for another writer to finish.
 * @throws RegistryError BLOB_UPLOAD_UNKNOWN; UNAVAILABLE with `Retry-After` while another writer holds it.
 */
export async function withUploadLease<T>(
  db: Database,
  id: string,
  work: (lease: UploadLease) => Promise<T>,
): Promise<T> {
  const row = await take(db, id)
  const lost = new AbortController()
  let renewedAt = performance.now()
  let renewing: Promise<void> | undefined
  const renew = async (): Promise<void> => {
    const asked = performance.now()
    try {
      if (await db.transaction(tx => keepUpload(tx, id, row.epoch, LEASE_MS))) renewedAt = asked
      else lost.abort(new RegistryError('BLOB_UPLOAD_UNKNOWN', { detail: { upload: id } }))
    } catch (error) {
      if (performance.now() - renewedAt > LEASE_MS - MARGIN_MS) lost.abort(error)
    } finally {
      renewing = undefined
    }
  }
  const timer = setInterval(() => {
    if (performance.now() - renewedAt > LEASE_MS - MARGIN_MS) {
      lost.abort(new RegistryError('UNAVAILABLE', { headers: { 'Retry-After': '5' } }))
    } else renewing ??= renew()
  }, RENEW_MS)
  try {
    return await work({ row, signal: lost.signal })
  } finally {
    clearInterval(timer)
    await renewing
    // A failure here costs the next writer a wait until the lease ends, and must not hide the outcome of the work.
    await db.transaction(tx => releaseUpload(tx, id, row.epoch)).catch(() => undefined)
  }
}

async function take(db: Database, id: string): Promise<UploadRow> {
  const deadline = performance.now() + WAIT_MS
  for (;;) {
    const row = await db.transaction(tx => takeUpload(tx, id, LEASE_MS))
    if (row !== undefined) return row
    const present = await db.query('select id from upload where id = $1 and expires_at > clock_timestamp()', [id])
    if (present.length === 0) throw new RegistryError('BLOB_UPLOAD_UNKNOWN', { detail: { upload: id } })
    if (performance.now() > deadline) {
      throw new RegistryError('UNAVAILABLE', {
        message: 'another request is writing to this upload',
        headers: { 'Retry-After': '5' },
      })
    }
    await delay(POLL_MS)
  }
}
