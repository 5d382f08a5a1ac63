import { UpstreamFailure } from './upstream-failure.ts'

/** How an upstream that fails is left alone. Milliseconds. */
export interface BackOff {
  /** Failures in a row after which nothing is asked for a while. */
  readonly failures: number
  readonly firstMs: number
  readonly mostMs: number
  /** How long after "too many requests" without a time of its own. */
  readonly limitedMs: number
}

export const BACK_OFF: BackOff = { failures: 3, firstMs: 1_000, mostMs: 60_000, limitedMs: 30_000 }

/**
 * Whether an upstream is worth asking. After several failures in a row, or one "too many requests", it is not asked for
 * a while; then one request tries, and what comes of it decides for all. Each process finds out for itself.
 */
export class UpstreamHealth {
  readonly #backOff: BackOff
  readonly #now: () => number
  #failures = 0
  #closedUntil = 0
  #isProbing = false
  #last: UpstreamFailure | undefined

  constructor(backOff: BackOff = BACK_OFF, now: () => number = () => performance.now()) {
    this.#backOff = backOff
    this.#now = now
  }

  /** The failure for which nothing is asked now. */
  get closed(): UpstreamFailure | undefined {
    return this.#closedUntil > this.#now() || this.#isProbing ? this.#last : undefined
  }

  /** Asks, unless the upstream is left alone. @throws UpstreamFailure the last one again, or that of `ask` */
  async run<T>(ask: () => Promise<T>): Promise<T> {
    const { closed } = this
    if (closed !== undefined) {
      throw new UpstreamFailure(closed.kind, closed.message, { ...retryOf(closed), cause: closed })
    }
    const probes = this.#closedUntil > 0
    this.#isProbing = probes
    try {
      const answer = await ask()
      this.#recover()
      return answer
    } catch (error) {
      // An answer, whatever it says, comes from an upstream that works.
      if (!(error instanceof UpstreamFailure)) throw error
      if (error.kind === 'failed' || error.kind === 'limited') this.#note(error)
      else this.#recover()
      throw error
    } finally {
      if (probes) this.#isProbing = false
    }
  }

  #recover(): void {
    this.#failures = 0
    this.#closedUntil = 0
    this.#last = undefined
  }

  #note(failure: UpstreamFailure): void {
    this.#failures += 1
    this.#last = failure
    const { failures, firstMs, mostMs, limitedMs } = this.#backOff
    const over = this.#failures - failures
    const pause = Math.min(firstMs * 2 ** Math.max(over, 0), mostMs)
    if (failure.kind === 'limited') this.#closedUntil = this.#now() + (retryAfterMs(failure.retryAfter) ?? limitedMs)
    else if (over >= 0) this.#closedUntil = this.#now() + pause
  }
}

function retryOf({ retryAfter }: UpstreamFailure): { retryAfter?: string } {
  return retryAfter === undefined ? {} : { retryAfter }
}

const MOST_RETRY_MS = 60 * 60_000

/** `Retry-After` in milliseconds: RFC 9110 section 10.2.3. An hour at most. */
export function retryAfterMs(value: string | undefined): number | undefined {
  if (value === undefined) return undefined
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now()
  return Number.isFinite(ms) ? Math.min(Math.max(ms, 0), MOST_RETRY_MS) : undefined
}
