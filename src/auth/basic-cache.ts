import { createHmac, randomBytes } from 'node:crypto'
import { LRUCache } from 'lru-cache'

const LIMIT = 10_000

/**
 * Remembers for a moment that a name and password were right, so that a burst of logins costs one hash. The key is a
 * keyed hash of both, with a key that only this process has: memory holds nothing a password could be guessed from
 * elsewhere. Wrong passwords are not remembered.
 */
export class BasicCache<T extends object> {
  readonly #key = randomBytes(32)
  readonly #known: LRUCache<string, T>
  readonly #running = new Map<string, Promise<T | undefined>>()

  /** @param lifetimeMs how long an answer is remembered */
  constructor(lifetimeMs: number) {
    this.#known = new LRUCache({ max: LIMIT, ttl: lifetimeMs })
  }

  /** The remembered answer, or that of `check`; those who ask together for the same share one check. */
  async get(name: string, password: string, check: () => Promise<T | undefined>): Promise<T | undefined> {
    const key = createHmac('sha256', this.#key).update(`${name}\0${password}`).digest('base64')
    const known = this.#known.get(key)
    if (known !== undefined) return known
    let running = this.#running.get(key)
    if (running === undefined) {
      running = check().finally(() => this.#running.delete(key))
      this.#running.set(key, running)
    }
    const answer = await running
    if (answer !== undefined) this.#known.set(key, answer)
    return answer
  }
}
