import type { Database } from '../metadata/database.ts'
import { type HeldUpload, keepUploads } from '../metadata/uploads.ts'

/**
 * What became of asking for a renewal: `kept`, `lost` (the session is gone, or another took it), or `busy`, when someone
 * works on its row just now. `asked` is the monotonic time in milliseconds at which the index was asked.
 */
export interface Renewal {
  readonly outcome: 'kept' | 'lost' | 'busy'
  readonly asked: number
}

interface Waiter extends HeldUpload {
  readonly resolve: (renewal: Renewal) => void
  readonly reject: (error: unknown) => void
}

/**
 * Renews the leases of all uploads that a process writes to: those that are asked for while the index is at the last ones
 * go together in one transaction. One each would make a machine that is short of time, where it matters most to be heard
 * in time, lose all of them.
 */
export class LeaseRenewals {
  readonly #db: Database
  readonly #leaseMs: number
  #waiting: Waiter[] = []
  #isRunning = false

  constructor(db: Database, leaseMs: number) {
    this.#db = db
    this.#leaseMs = leaseMs
  }

  /** Goes on holding one lease. @throws what the index throws */
  renew(held: HeldUpload): Promise<Renewal> {
    const { promise, resolve, reject } = Promise.withResolvers<Renewal>()
    this.#waiting.push({ ...held, resolve, reject })
    if (!this.#isRunning) void this.#run()
    return promise
  }

  async #run(): Promise<void> {
    this.#isRunning = true
    try {
      while (this.#waiting.length > 0) await this.#renewAll(this.#waiting.splice(0))
    } finally {
      this.#isRunning = false
    }
  }

  async #renewAll(waiters: readonly Waiter[]): Promise<void> {
    try {
      const { asked, kept, present } = await this.#db.transaction(async tx => {
        const began = performance.now()
        return { asked: began, ...(await keepUploads(tx, waiters, this.#leaseMs)) }
      })
      for (const { id, resolve } of waiters) {
        resolve({ outcome: kept.has(id) ? 'kept' : present.has(id) ? 'busy' : 'lost', asked })
      }
    } catch (error) {
      for (const { reject } of waiters) reject(error)
    }
  }
}
