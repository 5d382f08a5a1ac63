import type { Database } from '../metadata/database.ts'
import { touchPrincipals } from '../metadata/principals.ts'

const FLUSH_MS = 10_000

/** Collects when principals and tokens were last used and writes it now and then: no login waits for a write. */
export class UseTimes {
  readonly #db: Database
  readonly #onError: (error: unknown) => void
  #used = new Map<string, { principalId: number; tokenId: number | undefined; at: Date }>()
  #timer: NodeJS.Timeout | undefined

  constructor(db: Database, onError: (error: unknown) => void) {
    this.#db = db
    this.#onError = onError
  }

  /** Remembers a use for the next write. */
  used(principalId: number, tokenId: number | undefined): void {
    this.#used.set(`${principalId} ${tokenId ?? ''}`, { principalId, tokenId, at: new Date() })
    this.#timer ??= setTimeout(() => void this.flush(), FLUSH_MS).unref()
  }

  /** Writes what was collected; what cannot be written is reported and lost: a later use says it again. */
  async flush(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const used = [...this.#used.values()]
    if (used.length === 0) return
    this.#used = new Map()
    try {
      await this.#db.transaction(tx => touchPrincipals(tx, used))
    } catch (error) {
      this.#onError(error)
    }
  }
}
