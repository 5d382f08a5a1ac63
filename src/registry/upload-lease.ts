import { setTimeout as delay } from 'node:timers/promises'
import { RegistryError } from '../oci/errors.ts'
import type { Database } from '../metadata/database.ts'
import { type TakenUpload, releaseUpload, takeUpload } from '../metadata/uploads.ts'
import { LeaseRenewals } from './lease-renewals.ts'

/** How a lease lives, in milliseconds. */
export interface LeaseTimes {
  /** How long a writer may go without renewing before another may take over. */
  readonly leaseMs: number
  readonly renewMs: number
  /** The writer stops this long before its lease ends by its own monotonic clock. */
  readonly marginMs: number
  /** How long another writer is waited for. */
  readonly waitMs: number
  readonly pollMs: number
}

const TIMES: LeaseTimes = { leaseMs: 12_000, renewMs: 3_000, marginMs: 4_000, waitMs: 20_000, pollMs: 100 }

/** The exclusive right to write to one upload session. */
export interface UploadLease {
  readonly row: TakenUpload
  /** Fires when the right is lost or can no longer be renewed in time. */
  readonly signal: AbortSignal
}

/** The leases of all upload sessions that this process writes to. */
export class UploadLeases {
  readonly #db: Database
  readonly #times: LeaseTimes
  readonly #renewals: LeaseRenewals

  constructor(db: Database, times: LeaseTimes = TIMES) {
    this.#db = db
    this.#times = times
    this.#renewals = new LeaseRenewals(db, times.leaseMs)
  }

  /**
   * Runs `work` as the only writer of an upload, across processes: the lease is taken by compare-and-set, renewed while
   * `work` runs, and let go at its end. Waits up to 20 s for another writer to finish. A process that was stopped does
   * not see its lease end, so the taker of an `abandoned` one must move the bytes out of the other's reach.
   * @throws RegistryError BLOB_UPLOAD_UNKNOWN; UNAVAILABLE with `Retry-After` while another writer holds it.
   */
  async hold<T>(id: string, work: (lease: UploadLease) => Promise<T>): Promise<T> {
    const { leaseMs, marginMs, renewMs } = this.#times
    const { row, asked: takenAt } = await take(this.#db, id, this.#times)
    const { epoch } = row
    const lost = new AbortController()
    // Since before the database was asked: its clock started the lease later than that, never earlier.
    let renewedAt = takenAt
    const isLate = (): boolean => performance.now() - renewedAt > leaseMs - marginMs
    let renewing: Promise<void> | undefined
    const renew = async (): Promise<void> => {
      try {
        const { outcome, asked } = await this.#renewals.renew({ id, epoch })
        if (outcome === 'kept') renewedAt = asked
        if (outcome === 'lost') lost.abort(new RegistryError('BLOB_UPLOAD_UNKNOWN', { detail: { upload: id } }))
      } catch (error) {
        if (isLate()) lost.abort(error)
      } finally {
        renewing = undefined
      }
    }
    const timer = setInterval(() => {
      if (isLate()) lost.abort(new RegistryError('UNAVAILABLE', { headers: { 'Retry-After': '5' } }))
      else renewing ??= renew()
    }, renewMs)
    try {
      return await work({ row, signal: lost.signal })
    } finally {
      clearInterval(timer)
      await renewing
      // A failure here costs the next writer a wait until the lease ends, and must not hide the outcome of the work.
      await this.#db.transaction(tx => releaseUpload(tx, id, epoch)).catch(() => undefined)
    }
  }
}

async function take(
  db: Database,
  id: string,
  times: LeaseTimes,
): Promise<{ readonly row: TakenUpload; readonly asked: number }> {
  const deadline = performance.now() + times.waitMs
  for (;;) {
    const asked = performance.now()
    const row = await db.transaction(tx => takeUpload(tx, id, times.leaseMs))
    if (row !== undefined) return { row, asked }
    const present = await db.query('select id from upload where id = $1 and expires_at > clock_timestamp()', [id])
    if (present.length === 0) throw new RegistryError('BLOB_UPLOAD_UNKNOWN', { detail: { upload: id } })
    if (performance.now() > deadline) {
      throw new RegistryError('UNAVAILABLE', {
        message: 'another request is writing to this upload',
        headers: { 'Retry-After': '5' },
      })
    }
    await delay(times.pollMs)
  }
}
