import type { Database } from '../metadata/database.ts'
import { type NewAudit, insertAudit } from '../metadata/audit.ts'

const FLUSH_MS = 1_000
/**
 * Of one second. Beyond this, refusals are counted and not kept, or a stranger could fill memory; what was allowed, which
 * no flood of guesses makes, is kept far beyond it.
 */
const MAX_REFUSED = 1_000
const MAX_WAITING = 20_000

/**
 * Records logins and refusals a moment after they were answered, many in one statement: a login must not wait for its own
 * record. What an administrator changes is recorded in the change's own transaction instead.
 */
export class AuditTrail {
  readonly #db: Database
  readonly #onError: (error: unknown) => void
  #waiting: NewAudit[] = []
  #dropped = 0
  #timer: NodeJS.Timeout | undefined
  #writing: Promise<void> = Promise.resolve()

  constructor(db: Database, onError: (error: unknown) => void) {
    this.#db = db
    this.#onError = onError
  }

  /** Keeps an entry for the next write. */
  add(entry: NewAudit): void {
    if (this.#waiting.length >= (entry.outcome === 'refused' ? MAX_REFUSED : MAX_WAITING)) {
      this.#dropped += 1
      return
    }
    this.#waiting.push(entry)
    this.#timer ??= setTimeout(() => void this.flush(), FLUSH_MS).unref()
  }

  /** Writes what waits. A failure is reported, and what could not be written is tried again with the next. */
  async flush(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#writing = this.#writing.then(() => this.#write())
    await this.#writing
  }

  async #write(): Promise<void> {
    const entries = this.#waiting
    if (entries.length === 0) return
    this.#waiting = []
    const dropped = this.#dropped
    this.#dropped = 0
    const notice: NewAudit = { kind: 'audit.overflow', outcome: 'refused', actor: '', detail: { dropped } }
    try {
      await this.#db.transaction(tx => insertAudit(tx, dropped > 0 ? [...entries, notice] : entries))
    } catch (error) {
      const all = [...entries, ...this.#waiting]
      this.#waiting = all.slice(0, MAX_WAITING)
      this.#dropped += dropped + all.length - this.#waiting.length
      this.#onError(error)
    }
  }
}
