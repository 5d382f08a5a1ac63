import { Transform, type Readable, type TransformCallback, pipeline } from 'node:stream'

/**
 * A bound on how many bytes a second all streams that go through it take together: a bucket of tokens in the form of the
 * time at which it will be empty. Whoever comes waits until those before it have had their time.
 */
export class Throttle {
  readonly #bytesPerSecond: number
  readonly #now: () => number
  /** When the bytes that were let through will have taken their time. */
  #paidUntil = 0

  /** @param now milliseconds of a clock that never goes back */
  constructor(bytesPerSecond: number, now: () => number = () => performance.now()) {
    this.#bytesPerSecond = bytesPerSecond
    this.#now = now
  }

  /** How long these bytes have to wait, in milliseconds; they are taken for let through. */
  charge(bytes: number): number {
    const now = this.#now()
    const waitMs = Math.max(0, this.#paidUntil - now)
    this.#paidUntil = now + waitMs + (bytes / this.#bytesPerSecond) * 1000
    return waitMs
  }
}

/**
 * A body as it comes, with its bytes told to `onBytes` and held to a rate where there is one. `onBreak` is told where the
 * body itself breaks off, and not where whoever reads it goes away.
 */
export function metered(
  body: Readable,
  meter: {
    readonly throttle: Throttle | undefined
    readonly onBytes: (bytes: number) => void
    readonly onBreak: (error: unknown) => void
  },
): Readable {
  const passing = new Passing(meter.throttle, meter.onBytes)
  body.on('error', error => {
    if (!passing.destroyed) meter.onBreak(error)
  })
  pipeline(body, passing, () => undefined)
  return passing
}

class Passing extends Transform {
  readonly #throttle: Throttle | undefined
  readonly #onBytes: (bytes: number) => void
  #timer: NodeJS.Timeout | undefined

  constructor(throttle: Throttle | undefined, onBytes: (bytes: number) => void) {
    super()
    this.#throttle = throttle
    this.#onBytes = onBytes
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    this.#onBytes(chunk.byteLength)
    const waitMs = this.#throttle?.charge(chunk.byteLength) ?? 0
    if (waitMs <= 0) done(null, chunk)
    else this.#timer = setTimeout(() => done(null, chunk), waitMs)
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    clearTimeout(this.#timer)
    done(error)
  }
}
