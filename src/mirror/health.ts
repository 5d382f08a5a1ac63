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

/** Asked; so many failures in a row. */
interface Asking {
  readonly state: 'asking'
  readonly failures: number
}

/** Left alone until then; one request tries after that, and while it does `isProbing`. */
interface Paused {
  readonly state: 'paused'
  readonly until: number
  readonly isProbing: boolean
  /** Pauses in a row, this one included. */
  readonly pauses: number
  readonly failure: UpstreamFailure
}

/**
 * Whether an upstream is worth asking: a circuit breaker. It is asked; after several failures in a row, or one "too many
 * requests", it is paused for a while and nothing is asked; then one request tries, and what comes of it decides for all.
 * What was asked before the pause decides nothing any more, except that "too many requests" always begins one and never
 * shortens one. Each process finds out for itself.
 */
export class UpstreamHealth {
  readonly #backOff: BackOff
  readonly #now: () => number
  #is: Asking | Paused = { state: 'asking', failures: 0 }
  /** Counts pauses, probes and their ends: by it an answer is known to be to a question of before. */
  #era = 0

  constructor(backOff: BackOff = BACK_OFF, now: () => number = () => performance.now()) {
    this.#backOff = backOff
    this.#now = now
  }

  /** The failure for which nothing is asked now; its `Retry-After` is what is left of the pause. */
  get paused(): UpstreamFailure | undefined {
    if (this.#is.state === 'asking') return undefined
    const { until, isProbing, failure } = this.#is
    const leftMs = until - this.#now()
    if (leftMs <= 0 && !isProbing) return undefined
    const retryAfter = String(Math.max(Math.ceil(leftMs / 1000), 1))
    return new UpstreamFailure(failure.kind, failure.message, { retryAfter, cause: failure })
  }

  /** Asks, unless the upstream is left alone. @throws UpstreamFailure the last one again, or that of `ask` */
  async run<T>(ask: () => Promise<T>): Promise<T> {
    const { paused } = this
    if (paused !== undefined) throw paused
    if (this.#is.state === 'paused') this.#become({ ...this.#is, isProbing: true })
    const era = this.#era
    try {
      const answer = await ask()
      this.#answered(era)
      return answer
    } catch (error) {
      // An answer, whatever it says, comes from an upstream that works.
      if (!(error instanceof UpstreamFailure)) this.#abandoned(era)
      else if (error.kind === 'limited') this.#limited(error)
      else if (error.kind === 'failed') this.#failed(era, error)
      else this.#answered(era)
      throw error
    }
  }

  #become(state: Asking | Paused): void {
    this.#is = state
    this.#era += 1
  }

  #answered(era: number): void {
    if (era !== this.#era) return
    if (this.#is.state === 'paused') this.#become({ state: 'asking', failures: 0 })
    else this.#is = { state: 'asking', failures: 0 }
  }

  /** A probe that told nothing about the upstream: the next request is one. */
  #abandoned(era: number): void {
    if (era === this.#era && this.#is.state === 'paused') this.#become({ ...this.#is, isProbing: false })
  }

  #failed(era: number, failure: UpstreamFailure): void {
    if (era !== this.#era) return
    const { failures, firstMs, mostMs } = this.#backOff
    if (this.#is.state === 'asking' && this.#is.failures + 1 < failures) {
      this.#is = { state: 'asking', failures: this.#is.failures + 1 }
      return
    }
    const pauses = this.#pauses
    const asked = Math.min(retryAfterMs(failure.retryAfter) ?? 0, mostMs)
    this.#pause(Math.max(Math.min(firstMs * 2 ** pauses, mostMs), asked), failure)
  }

  #limited(failure: UpstreamFailure): void {
    const { firstMs, limitedMs } = this.#backOff
    this.#pause(Math.max(retryAfterMs(failure.retryAfter) ?? limitedMs, firstMs), failure)
  }

  #pause(pauseMs: number, failure: UpstreamFailure): void {
    const until = this.#now() + pauseMs
    if (this.#is.state === 'paused' && this.#is.until > until) return
    this.#become({ state: 'paused', until, isProbing: false, pauses: this.#pauses + 1, failure })
  }

  get #pauses(): number {
    return this.#is.state === 'paused' ? this.#is.pauses : 0
  }
}

const MOST_RETRY_MS = 60 * 60_000

/** `Retry-After` in milliseconds: RFC 9110 section 10.2.3. An hour at most. */
export function retryAfterMs(value: string | undefined): number | undefined {
  if (value === undefined) return undefined
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now()
  return Number.isFinite(ms) ? Math.min(Math.max(ms, 0), MOST_RETRY_MS) : undefined
}
