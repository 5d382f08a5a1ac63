/** Places of which each is had by one at a time; who finds none free waits, in order. */
export class Slots {
  readonly #waiting: PromiseWithResolvers<void>[] = []
  #free: number

  constructor(count: number) {
    this.#free = count
  }

  /** Takes one; whoever has it gives it back by calling what this resolves to. Undefined after `waitMs` without one. @throws the signal's reason */
  async take(waitMs: number, signal: AbortSignal): Promise<(() => void) | undefined> {
    signal.throwIfAborted()
    if (this.#free > 0) this.#free -= 1
    else if (!(await this.#wait(waitMs, signal))) return undefined
    let isHeld = true
    return () => {
      if (isHeld) this.#giveBack()
      isHeld = false
    }
  }

  async #wait(waitMs: number, signal: AbortSignal): Promise<boolean> {
    const turn = Promise.withResolvers<void>()
    this.#waiting.push(turn)
    const over = Promise.withResolvers<false>()
    const onAbort = (): void => over.reject(signal.reason as Error)
    signal.addEventListener('abort', onAbort, { once: true })
    const timer = setTimeout(() => over.resolve(false), waitMs)
    let isOurs = false
    try {
      isOurs = await Promise.race([turn.promise.then(() => true), over.promise])
      return isOurs
    } finally {
      clearTimeout(timer)
      signal.removeEventListener('abort', onAbort)
      const at = this.#waiting.indexOf(turn)
      if (at !== -1) this.#waiting.splice(at, 1)
      // Given to whoever had just gone.
      else if (!isOurs) this.#giveBack()
    }
  }

  #giveBack(): void {
    const next = this.#waiting.shift()
    if (next === undefined) this.#free += 1
    else next.resolve()
  }
}
