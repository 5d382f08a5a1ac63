/** There is no room to wait in: work was not begun. */
export class TurnsTaken extends Error {
  override readonly name = 'TurnsTaken'
}

interface Waiting {
  readonly begin: () => void
  readonly refuse: (error: TurnsTaken) => void
}

/**
 * Lets at most so many pieces of work run at once, and at most so many wait: those of one party in the order in which they
 * came, the parties by turns. Where there is no more room, the party that has most waiting gives way, so that nobody keeps
 * others out by asking more often.
 */
export class Turns {
  /** By party; whose turn is next stands first. None is empty. */
  readonly #waiting = new Map<string, Waiting[]>()
  readonly #room: number
  #free: number

  /**
   * @param atOnce how many may run at the same time
   * @param room how many may wait
   */
  constructor(atOnce: number, room: number) {
    this.#free = atOnce
    this.#room = room
  }

  /** The result of `work`, when it is its party's turn. @throws TurnsTaken where it cannot wait for that. */
  async take<T>(party: string, work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free -= 1
    else await this.#wait(party)
    try {
      return await work()
    } finally {
      // Who ends hands its place on, so that nobody who comes in between takes it first.
      const next = this.#next()
      if (next === undefined) this.#free += 1
      else next.begin()
    }
  }

  async #wait(party: string): Promise<void> {
    const own = this.#waiting.get(party) ?? []
    const queues = [...this.#waiting.values()]
    if (queues.reduce((sum, queue) => sum + queue.length, 0) >= this.#room) {
      const longest = queues.reduce((one, other) => (other.length > one.length ? other : one), own)
      // Who gave way for one that has as many would do the same to it in turn.
      if (longest.length < own.length + 2) throw new TurnsTaken()
      longest.pop()?.refuse(new TurnsTaken())
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    own.push({ begin: resolve, refuse: reject })
    this.#waiting.set(party, own)
    await promise
  }

  #next(): Waiting | undefined {
    for (const [party, queue] of this.#waiting) {
      const next = queue.shift()
      this.#waiting.delete(party)
      if (queue.length > 0) this.#waiting.set(party, queue)
      return next
    }
    return undefined
  }
}
