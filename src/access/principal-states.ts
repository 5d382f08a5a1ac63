import { LRUCache } from 'lru-cache'
import type { Database } from '../metadata/database.ts'
import { type PrincipalRow, findPrincipals } from '../metadata/principals.ts'

const LIMIT = 10_000

/** Whether whoever vouches for a principal, where that is not this registry, still does. */
export type Vouching = (principal: PrincipalRow) => boolean

interface State {
  /** Undefined: gone, disabled or expired. */
  readonly row: PrincipalRow | undefined
  readonly readAt: number
}

/**
 * Whether principals that tokens were issued to are still what they were. What is remembered is never older than
 * `maxAgeMs`, so a revocation is effective within that time in every process. Look-ups that arrive together are one query.
 */
export class PrincipalStates {
  readonly #db: Database
  readonly #maxAgeMs: number
  readonly #isVouchedFor: Vouching
  readonly #states = new LRUCache<number, State>({ max: LIMIT })
  #wanted: { readonly ids: Set<number>; readonly read: Promise<void> } | undefined

  constructor(db: Database, maxAgeMs: number, isVouchedFor: Vouching) {
    this.#db = db
    this.#isVouchedFor = isVouchedFor
    this.#maxAgeMs = maxAgeMs
  }

  /** The same by the row as it is now, for who was just read from it: a remembered state may be older than that. */
  async isCurrentNow(principalId: number, epoch: number): Promise<boolean> {
    if (this.#states.get(principalId)?.row?.epoch !== epoch) this.forget(principalId)
    return await this.isCurrent(principalId, epoch)
  }

  /** Whether the principal is active and of that epoch. */
  async isCurrent(principalId: number, epoch: number): Promise<boolean> {
    const known = this.recall(principalId, epoch)
    if (known !== undefined) return known
    await this.#read(principalId)
    return this.#isOf(this.#states.get(principalId), epoch)
  }

  /** The same where what is remembered is young enough to say it; undefined where the row must be read. */
  recall(principalId: number, epoch: number): boolean | undefined {
    const state = this.#states.get(principalId)
    const isFresh = state !== undefined && performance.now() - state.readAt < this.#maxAgeMs
    return isFresh ? this.#isOf(state, epoch) : undefined
  }

  #isOf(state: State | undefined, epoch: number): boolean {
    const row = state?.row
    return row !== undefined && row.epoch === epoch && this.#isVouchedFor(row)
  }

  /** Forgets what is remembered of a principal, after this process changed it. */
  forget(principalId: number): void {
    this.#states.delete(principalId)
  }

  async #read(principalId: number): Promise<void> {
    if (this.#wanted === undefined) {
      const ids = new Set<number>()
      // Whoever asks before the query is sent joins it; whoever asks later needs a later one.
      const read = Promise.resolve().then(async () => {
        this.#wanted = undefined
        const readAt = performance.now()
        const rows = new Map((await findPrincipals(this.#db, [...ids])).map(row => [row.id, row]))
        for (const id of ids) {
          const row = rows.get(id)
          this.#states.set(id, { row: row?.active === true ? row : undefined, readAt })
        }
      })
      this.#wanted = { ids, read }
    }
    this.#wanted.ids.add(principalId)
    await this.#wanted.read
  }
}
