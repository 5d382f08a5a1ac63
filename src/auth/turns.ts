/** Lets at most so many pieces of work run at once; the others wait, in the order in which they came. */
export class Turns {
  readonly #waiting: (() => void)[] = []
  #free: number

  /** @param atOnce how many may run at the same time */
  constructor(atOnce: number) {
    this.#free = atOnce
  }

  /** The result of `work`, when it is its turn. */
  async take<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free -= 1
    else await new Promise<void>(resolve => this.#waiting.push(resolve))
    try {
      return await work()
    } finally {
      // Who ends hands its place on, so that nobody who comes in between takes it first.
      const next = this.#waiting.shift()
      if (next === undefined) this.#free += 1
      else next()
    }
  }
}
