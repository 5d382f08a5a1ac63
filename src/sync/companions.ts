import { LRUCache } from 'lru-cache'
import type { Source } from './sides.ts'

/** Tags that are made of the digest of what they are about, with a suffix: `sha256-….sig`. */
const COMPANION = /^sha(?:256-[0-9a-f]{64}|512-[0-9a-f]{64,128})\./
const REPOSITORIES = 20

/** Companion tags by repository; those of the repositories that were asked for last are remembered. */
export class Companions {
  readonly #known: LRUCache<string, Promise<readonly string[]>>

  constructor(source: Source) {
    this.#known = new LRUCache({
      max: REPOSITORIES,
      memoMethod: async (repository): Promise<readonly string[]> =>
        (await source.tags(repository)).filter(tag => COMPANION.test(tag)),
    })
  }

  /** @throws UpstreamFailure, RegistryError */
  async of(repository: string): Promise<readonly string[]> {
    try {
      return await this.#known.memo(repository)
    } catch (error) {
      this.#known.delete(repository)
      throw error
    }
  }
}
