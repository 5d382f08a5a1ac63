import { setTimeout as delay } from 'node:timers/promises'
import { retryAfterMs } from '../mirror/health.ts'
import { UpstreamFailure } from '../mirror/upstream-failure.ts'

/** How long a registry is waited for, in milliseconds. */
export interface PatienceTimes {
  /** After "too many requests" without a time of its own, and at most. */
  readonly limitedMs: number
  readonly mostLimitedMs: number
  /** In all, of one request. */
  readonly allLimitedMs: number
  /** After the first failure; it doubles with each. */
  readonly retryMs: number
  readonly retries: number
}

const TIMES: PatienceTimes = {
  limitedMs: 30_000,
  mostLimitedMs: 15 * 60_000,
  allLimitedMs: 60 * 60_000,
  retryMs: 500,
  retries: 4,
}

/**
 * Asks a registry again where it fails for a moment. Where it says "too many requests", everybody who shares this waits
 * as long as it says.
 */
export class Patience {
  readonly #times: PatienceTimes
  readonly #signal: AbortSignal
  #pausedUntil = 0

  constructor(signal: AbortSignal, times: PatienceTimes = TIMES) {
    this.#signal = signal
    this.#times = times
  }

  /** @throws UpstreamFailure the last one; the signal's reason. */
  async run<T>(ask: () => Promise<T>): Promise<T> {
    let waitedMs = 0
    for (let failures = 0; ;) {
      await this.#pause()
      try {
        return await ask()
      } catch (error) {
        this.#signal.throwIfAborted()
        if (!(error instanceof UpstreamFailure)) throw error
        if (error.kind === 'limited') {
          const { limitedMs, mostLimitedMs, allLimitedMs } = this.#times
          const ms = Math.min(retryAfterMs(error.retryAfter) ?? limitedMs, mostLimitedMs)
          waitedMs += Math.max(ms, 1_000)
          if (waitedMs > allLimitedMs) throw error
          this.#pausedUntil = Math.max(this.#pausedUntil, performance.now() + ms)
        } else if (error.kind === 'failed' && failures < this.#times.retries) {
          await this.wait(failures)
          failures += 1
        } else {
          throw error
        }
      }
    }
  }

  /** Waits before another try after so many failures. */
  async wait(failures: number): Promise<void> {
    await delay(this.#times.retryMs * 2 ** failures, undefined, { signal: this.#signal })
  }

  get retries(): number {
    return this.#times.retries
  }

  async #pause(): Promise<void> {
    for (;;) {
      const ms = this.#pausedUntil - performance.now()
      if (ms <= 0) return
      await delay(ms, undefined, { signal: this.#signal })
    }
  }
}
