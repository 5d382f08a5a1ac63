import { createHmac, randomBytes } from 'node:crypto'
import { LRUCache } from 'lru-cache'

const LIMIT = 10_000

/**
 * Names lists of texts, the last of them a secret, by a keyed hash whose key only this process has: memory then holds nothing
 * that the secret could be guessed from elsewhere.
 */
class SecretNames {
  readonly #key = randomBytes(32)

  nameOf(...texts: readonly string[]): string {
    return createHmac('sha256', this.#key).update(JSON.stringify(texts)).digest('base64')
  }
}

/** Remembers for a while which passwords were right for which hash. Wrong ones are not remembered. */
export class RightPasswords {
  readonly #names = new SecretNames()
  readonly #known: LRUCache<string, true>

  /** @param lifetimeMs how long a right password is remembered */
  constructor(lifetimeMs: number) {
    this.#known = new LRUCache({ max: LIMIT, ttl: lifetimeMs })
  }

  add(hash: string, password: string): void {
    this.#known.set(this.#names.nameOf(hash, password), true)
  }

  has(hash: string, password: string): boolean {
    return this.#known.has(this.#names.nameOf(hash, password))
  }
}

/** Lets those who ask the same at the same time share one answer; nothing is remembered after it. */
export class SharedChecks<T> {
  readonly #names = new SecretNames()
  readonly #running = new Map<string, Promise<T>>()

  /** @param names what the password is shown for, by which those who ask the same are known */
  async get(names: readonly string[], password: string, check: () => Promise<T>): Promise<T> {
    const key = this.#names.nameOf(...names, password)
    let running = this.#running.get(key)
    if (running === undefined) {
      running = check().finally(() => this.#running.delete(key))
      this.#running.set(key, running)
    }
    return await running
  }
}
