import { setTimeout as delay } from 'node:timers/promises'

/** Lets bytes pass at a bounded rate, counted over everybody who asks the same one. */
export class Pace {
  readonly #bytesPerSecond: number | undefined
  /** When the bytes that were let through would have taken their time. */
  #paidUntil = 0

  /** @param bytesPerSecond without it everything passes at once */
  constructor(bytesPerSecond: number | undefined) {
    this.#bytesPerSecond = bytesPerSecond
  }

  /** Resolves when what came before these bytes has taken its time. @throws the signal's reason when it fires. */
  async pass(bytes: number, signal: AbortSignal): Promise<void> {
    if (this.#bytesPerSecond === undefined) return
    const now = performance.now()
    const waitMs = this.#paidUntil - now
    this.#paidUntil = Math.max(now, this.#paidUntil) + (bytes / this.#bytesPerSecond) * 1000
    if (waitMs > 0) await delay(waitMs, undefined, { signal })
  }
}
