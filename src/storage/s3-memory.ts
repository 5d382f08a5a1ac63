/** What waits for memory. */
interface Waiter {
  readonly bytes: number
  readonly grant: (buffer: Buffer | undefined) => void
}

/**
 * The one budget for bytes on their way to the store. Buffers are handed out in the order in which they were asked
 * for, so that no size starves another, and used again: memory that was touched before is several times cheaper.
 */
export class UploadMemory {
  readonly bytes: number
  readonly #waiters: Waiter[] = []
  readonly #free: Buffer[] = []
  #held = 0
  #idle = 0

  /** @param bytes the whole budget */
  constructor(bytes: number) {
    this.bytes = bytes
  }

  /** Bytes handed out now. */
  get held(): number {
    return this.#held
  }

  /** Whether someone waits. */
  get contended(): boolean {
    return this.#waiters.length > 0
  }

  /**
   * A buffer of exactly `bytes`; undefined when `signal` fired or `waitMs` passed before there was room.
   * @throws RangeError when it can never fit.
   */
  acquire(bytes: number, signal: AbortSignal, waitMs?: number): Promise<Buffer | undefined> {
    if (bytes > this.bytes) throw new RangeError(`A buffer of ${bytes} bytes exceeds the budget of ${this.bytes}`)
    if (signal.aborted) return Promise.resolve(undefined)
    if (this.#waiters.length === 0 && this.#held + bytes <= this.bytes) return Promise.resolve(this.#take(bytes))
    const { promise, resolve } = Promise.withResolvers<Buffer | undefined>()
    let timer: NodeJS.Timeout | undefined
    const waiter: Waiter = {
      bytes,
      grant: buffer => {
        clearTimeout(timer)
        signal.removeEventListener('abort', leave)
        resolve(buffer)
      },
    }
    const leave = (): void => {
      this.#waiters.splice(this.#waiters.indexOf(waiter), 1)
      waiter.grant(undefined)
      this.#serve()
    }
    signal.addEventListener('abort', leave)
    if (waitMs !== undefined) timer = setTimeout(leave, waitMs)
    this.#waiters.push(waiter)
    return promise
  }

  /** Gives a buffer back; it must not be used afterwards. */
  release(buffer: Buffer): void {
    this.#held -= buffer.byteLength
    this.#idle += buffer.byteLength
    this.#free.push(buffer)
    this.#serve()
  }

  #serve(): void {
    for (;;) {
      const first = this.#waiters[0]
      if (first === undefined || this.#held + first.bytes > this.bytes) return
      this.#waiters.shift()
      first.grant(this.#take(first.bytes))
    }
  }

  #take(bytes: number): Buffer {
    this.#held += bytes
    const at = this.#free.findLastIndex(buffer => buffer.byteLength === bytes)
    const [found] = at === -1 ? [] : this.#free.splice(at, 1)
    if (found !== undefined) {
      this.#idle -= bytes
      return found
    }
    // Buffers of other sizes that nobody uses make room: both together never exceed the budget.
    while (this.#held + this.#idle > this.bytes) this.#idle -= this.#free.shift()?.byteLength ?? this.#idle
    return Buffer.allocUnsafeSlow(bytes)
  }
}
