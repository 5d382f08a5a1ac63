import { DatabaseUnavailable } from './database.ts'
import type { RowMemory } from './row-memory.ts'

/** Rows for `keys`, in their order; undefined where there is none. One statement. */
export type LoadRows<K, R> = (keys: readonly K[]) => Promise<readonly (R | undefined)[]>

/** Bounds of a {@link LookUp}; tests narrow them. */
export interface LookUpLimits {
  /** Keys in one statement. */
  readonly batchKeys: number
  /** Different keys that may wait or be asked for at a time; one more is refused. */
  readonly pendingKeys: number
  /** A statement without an answer for this long lets the next one go beside it. */
  readonly stallMs: number
  /** A key without an answer for this long is given up. */
  readonly timeoutMs: number
}

const LIMITS: LookUpLimits = { batchKeys: 256, pendingKeys: 20_000, stallMs: 50, timeoutMs: 10_000 }
const LANES = 2

/** One statement's worth of keys: it gathers while others are under way, and is closed once it is sent. */
interface Batch<K, R> {
  readonly asked: Map<string, Asked<K, R>>
  readonly deadline: NodeJS.Timeout
}

interface Asked<K, R> {
  readonly key: K
  readonly answer: PromiseWithResolvers<R | undefined>
}

/**
 * Look-ups that share statements: those that arrive while one statement is under way go together in the next. Each is
 * sent after it was asked for, never answered by a statement that was already under way, so whatever was committed
 * before the question, by any process, is in the answer. Only where no other process writes are rows remembered.
 */
export class LookUp<K, R> {
  readonly #load: LoadRows<K, R>
  readonly #idOf: (key: K) => string
  readonly #limits: LookUpLimits
  readonly #memory: RowMemory<R> | undefined
  readonly #waiting: Batch<K, R>[] = []
  #pendingKeys = 0
  #underWay = 0
  #stalled = 0

  /** @param idOf equal for keys that mean the same row: they share one place in the statement */
  constructor(
    load: LoadRows<K, R>,
    idOf: (key: K) => string,
    limits: Partial<LookUpLimits> = {},
    memory?: RowMemory<R>,
  ) {
    this.#load = load
    this.#idOf = idOf
    this.#limits = { ...LIMITS, ...limits }
    this.#memory = memory
  }

  /**
   * The row of `key` as it is now, or undefined.
   * @throws DatabaseUnavailable when the index does not answer in time or too many wait already; what the statement throws for this key alone.
   */
  async find(key: K): Promise<R | undefined> {
    const id = this.#idOf(key)
    const remembered = this.#memory?.get(id)
    if (remembered !== undefined) return remembered
    const known = this.#waiting.at(-1)?.asked.get(id)
    if (known !== undefined) return await known.answer.promise
    if (this.#pendingKeys >= this.#limits.pendingKeys) {
      throw new DatabaseUnavailable('too many look-ups wait for the index')
    }
    this.#pendingKeys += 1
    const answer = Promise.withResolvers<R | undefined>()
    this.#gathering().asked.set(id, { key, answer })
    this.#send()
    return await answer.promise
  }

  #gathering(): Batch<K, R> {
    const last = this.#waiting.at(-1)
    if (last !== undefined && last.asked.size < this.#limits.batchKeys) return last
    const batch: Batch<K, R> = {
      asked: new Map(),
      deadline: setTimeout(() => this.#giveUp(batch), this.#limits.timeoutMs),
    }
    this.#waiting.push(batch)
    return batch
  }

  #giveUp(batch: Batch<K, R>): void {
    const late = new DatabaseUnavailable(`the index gave no answer in ${this.#limits.timeoutMs} ms`)
    for (const { answer } of batch.asked.values()) answer.reject(late)
    const place = this.#waiting.indexOf(batch)
    if (place < 0) return // sent already: its lane ends with the driver's own time-out
    this.#waiting.splice(place, 1)
    this.#pendingKeys -= batch.asked.size
  }

  #send(): void {
    while (this.#underWay < Math.min(1 + this.#stalled, LANES)) {
      const batch = this.#waiting.shift()
      if (batch === undefined) return
      void this.#run(batch)
    }
  }

  async #run({ asked, deadline }: Batch<K, R>): Promise<void> {
    let hasStalled = false
    const stall = setTimeout(() => {
      hasStalled = true
      this.#stalled += 1
      this.#send()
    }, this.#limits.stallMs)
    this.#underWay += 1
    await this.#answer([...asked.values()])
    clearTimeout(stall)
    clearTimeout(deadline)
    this.#pendingKeys -= asked.size
    this.#underWay -= 1
    if (hasStalled) this.#stalled -= 1
    this.#send()
  }

  /** Settles every key; a failure that only one of them causes is only that one's. */
  async #answer(batch: readonly Asked<K, R>[]): Promise<void> {
    try {
      const keep = this.#memory?.reading()
      const rows = await this.#load(batch.map(({ key }) => key))
      for (const [index, { key, answer }] of batch.entries()) {
        const row = rows[index]
        answer.resolve(row)
        if (row !== undefined) keep?.(this.#idOf(key), row)
      }
    } catch (error) {
      if (batch.length === 1 || error instanceof DatabaseUnavailable) {
        for (const { answer } of batch) answer.reject(error)
      } else {
        for (const asked of batch) await this.#answer([asked])
      }
    }
  }
}

/** What the statements of look-ups add to each row: the place of its key, from 1. */
export interface Placed {
  readonly place: number
}

/** The rows of `count` keys in the order of the keys. */
export function inPlace<R extends Placed>(rows: readonly R[], count: number): (R | undefined)[] {
  const placed = Array.from<R | undefined>({ length: count })
  for (const row of rows) placed[row.place - 1] = row
  return placed
}
