import { LRUCache } from 'lru-cache'
import type { UpstreamFailure } from './upstream-failure.ts'

/** Seconds only: what is pushed to the upstream now must be there soon. */
const MEMORY_MS = 5_000
const MOST = 10_000

/** What an upstream said a moment ago that it does not have. */
export class AbsentMemory {
  readonly #failures = new LRUCache<string, UpstreamFailure>({ max: MOST, ttl: MEMORY_MS })

  find(key: string): UpstreamFailure | undefined {
    return this.#failures.get(key)
  }

  note(key: string, failure: UpstreamFailure): void {
    this.#failures.set(key, failure)
  }
}
