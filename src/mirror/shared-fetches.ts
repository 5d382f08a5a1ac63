import type { HeldFetch } from '../registry/fetch-leases.ts'
import type { BlobFetch } from './blob-fetch.ts'
import { isSigned, type ToldFailure } from './peers.ts'
import { UpstreamFailure } from './upstream-failure.ts'

interface Shared {
  readonly key: string
  readonly fetch: Promise<BlobFetch | undefined>
}

/** Told of failures for so long after the end: who followed it asks at once. */
const FORGET_MS = 60_000

/** What this process fetches for all, for those processes that can sign for it. */
export class SharedFetches {
  readonly #shared = new Map<string, Shared>()

  /** Offers a fetch that begins; what becomes of it is told for a while after its end. */
  add({ id, key }: HeldFetch, fetch: Promise<BlobFetch | undefined>): void {
    this.#shared.set(id, { key, fetch })
    const forget = (): unknown => setTimeout(() => this.#shared.delete(id), FORGET_MS).unref()
    void fetch.then(async begun => await begun?.ended).then(forget, forget)
  }

  /**
   * The fetch of that id: under way, or why it failed. Undefined where it is over or none of ours, and alike where the
   * signature is not right.
   */
  async find(id: string, signature: string): Promise<BlobFetch | ToldFailure | undefined> {
    const shared = this.#shared.get(id)
    if (shared === undefined || !isSigned(shared.key, id, signature, Date.now())) return undefined
    try {
      const fetch = await shared.fetch
      if (fetch?.failure !== undefined) return told(fetch.failure)
      return fetch === undefined || fetch.isOver || fetch.isBroken ? undefined : fetch
    } catch (error) {
      return told(error)
    }
  }
}

/** What others may know of a failure: what the upstream did is the same for them, what happened here is not. */
function told(error: unknown): ToldFailure | undefined {
  if (!(error instanceof UpstreamFailure)) return undefined
  const { kind, message, retryAfter } = error
  return { kind, message, ...(retryAfter === undefined ? {} : { retryAfter }) }
}
