import { LRUCache } from 'lru-cache'
import type { Identity } from '../auth/identity.ts'
import { type SecretState, findSecretStates } from '../metadata/access-tokens.ts'
import type { Database, Queryable } from '../metadata/database.ts'
import { type PrincipalRow, findPrincipals } from '../metadata/principals.ts'

const LIMIT = 10_000

/** What a token was issued for: a principal of an epoch, and the secret that was shown for it, where one was. */
export type Origin = Pick<Identity, 'principalId' | 'epoch' | 'secretId'>

/**
 * Whether principals that tokens were issued to, and the secrets they were issued for, are still what they were. What is
 * remembered is never older than `maxAgeMs`, so a revocation is effective within that time in every process.
 */
export class PrincipalStates {
  readonly #principals: States<PrincipalRow>
  readonly #secrets: States<SecretState>

  constructor(db: Database, maxAgeMs: number) {
    this.#principals = new States(db, maxAgeMs, findPrincipals)
    this.#secrets = new States(db, maxAgeMs, findSecretStates)
  }

  /** The same by the row as it is now, for who was just read from it: a remembered state may be older than that. */
  async isCurrentNow(origin: Origin): Promise<boolean> {
    const { principalId, epoch } = origin
    const state = principalId === undefined ? undefined : this.#principals.recall(principalId)
    if (principalId !== undefined && state !== undefined && state.row?.epoch !== epoch)
      this.#principals.forget(principalId)
    return await this.isCurrent(origin)
  }

  /**
   * Whether the principal is active and of that epoch, and the secret good. Who has no row here, such as the subject of
   * another issuer, always is.
   */
  async isCurrent(origin: Origin): Promise<boolean> {
    const known = this.recall(origin)
    if (known !== undefined) return known
    const { principalId, epoch, secretId } = origin
    if (principalId === undefined || epoch === undefined) return true
    const says = (row: PrincipalRow | undefined): boolean | undefined => verdictOf(row, epoch)
    if (says(await this.#principals.find(principalId, row => says(row) !== undefined)) !== true) return false
    return secretId === undefined || (await this.#secrets.find(secretId))?.active === true
  }

  /** The same where what is remembered is young and new enough to say it; undefined where rows must be read. */
  recall({ principalId, epoch, secretId }: Origin): boolean | undefined {
    if (principalId === undefined || epoch === undefined) return true
    const principal = this.#principals.recall(principalId)
    const verdict = principal && verdictOf(principal.row, epoch)
    if (verdict !== true || secretId === undefined) return verdict
    const secret = this.#secrets.recall(secretId)
    return secret && secret.row?.active === true
  }

  /** Forgets what is remembered of a principal and of secrets, after this process changed it. */
  forget(principalId: number): void {
    this.#principals.forget(principalId)
    this.#secrets.forget()
  }
}

/**
 * What a row that was read some time ago says of a token: epochs only rise, so it refuses those of former ones. Undefined
 * where the token may have been issued since the row was read, after another process enabled its principal or changed it.
 */
function verdictOf(principal: PrincipalRow | undefined, epoch: number): boolean | undefined {
  if (principal === undefined || principal.epoch < epoch) return undefined
  if (principal.epoch > epoch) return false
  return principal.active || undefined
}

interface State<R> {
  /** Undefined: gone. */
  readonly row: R | undefined
  readonly readAt: number
}

/** Rows by id, remembered for a while. Look-ups that arrive together are one query. */
class States<R extends { readonly id: number }> {
  readonly #db: Database
  readonly #maxAgeMs: number
  readonly #read: (db: Queryable, ids: readonly number[]) => Promise<readonly R[]>
  readonly #states = new LRUCache<number, State<R>>({ max: LIMIT })
  /** Raised when something is forgotten: what was asked for before that must not be remembered after it. */
  #generation = 0
  #wanted: { readonly ids: Set<number>; readonly rows: Promise<ReadonlyMap<number, R>> } | undefined

  constructor(db: Database, maxAgeMs: number, read: (db: Queryable, ids: readonly number[]) => Promise<readonly R[]>) {
    this.#db = db
    this.#maxAgeMs = maxAgeMs
    this.#read = read
  }

  /** One as it is remembered, or as it is now where that is too old or does not suffice. */
  async find(id: number, suffices: (row: R | undefined) => boolean = () => true): Promise<R | undefined> {
    const state = this.recall(id)
    return state !== undefined && suffices(state.row) ? state.row : (await this.#ask(id)).get(id)
  }

  /** What is remembered of one, where it is young enough. */
  recall(id: number): State<R> | undefined {
    const state = this.#states.get(id)
    return state !== undefined && performance.now() - state.readAt < this.#maxAgeMs ? state : undefined
  }

  /** Forgets one, or all. */
  forget(id?: number): void {
    this.#generation += 1
    if (id === undefined) this.#states.clear()
    else this.#states.delete(id)
  }

  async #ask(id: number): Promise<ReadonlyMap<number, R>> {
    if (this.#wanted === undefined) {
      const ids = new Set<number>()
      // Whoever asks before the query is sent joins it; whoever asks later needs a later one.
      const rows = Promise.resolve().then(async () => {
        this.#wanted = undefined
        const generation = this.#generation
        const readAt = performance.now()
        const found = new Map((await this.#read(this.#db, [...ids])).map(row => [row.id, row]))
        if (generation === this.#generation)
          for (const one of ids) this.#states.set(one, { row: found.get(one), readAt })
        return found
      })
      this.#wanted = { ids, rows }
    }
    this.#wanted.ids.add(id)
    return await this.#wanted.rows
  }
}
