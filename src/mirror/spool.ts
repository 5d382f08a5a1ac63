import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { type FileHandle, open, readdir, rm, stat, unlink } from 'node:fs/promises'
import { basename, join } from 'node:path'
import type { Writable } from 'node:stream'

const READ_BYTES = 256 * 1024
/** What came last is kept in memory: a hundred who follow closely would read it a hundred times. */
const RECENT_BYTES = 512 * 1024

interface Piece {
  readonly at: number
  readonly bytes: Buffer
}

const NAMED = '.blob'

/**
 * Bytes on their way, which many can follow, each at its own pace, while they come. They lie in a file without a name, so
 * a crash leaves nothing, unless other processes shall read it. The last byte is held back until the whole is known to be right: nobody takes wrong content
 * for complete.
 */
export class Spool {
  /** The file's name in its directory, where it has one. */
  readonly name: string | undefined
  readonly #file: FileHandle
  readonly #path: string
  readonly #size: number
  #available = 0
  #isComplete = false
  #failure: { readonly error: unknown } | undefined
  readonly #waiting = new Set<() => void>()
  readonly #recent: Piece[] = []
  #recentBytes = 0
  #holders = 1

  private constructor(file: FileHandle, path: string, isNamed: boolean, size: number) {
    this.name = isNamed ? basename(path) : undefined
    this.#file = file
    this.#path = path
    this.#size = size
  }

  /**
   * An empty one for `size` bytes, in `directory`; whoever opened it lets go of it. Its file keeps its name until then
   * where it `isNamed`: {@link removeLeftovers} takes those of dead processes.
   */
  static async open(directory: string, size: number, isNamed = false): Promise<Spool> {
    const path = join(directory, `${randomUUID()}${NAMED}`)
    const file = await open(path, 'wx+')
    try {
      if (!isNamed) await unlink(path)
      return new Spool(file, path, isNamed, size)
    } catch (error) {
      await file.close()
      throw error
    }
  }

  /** Bytes that have come. */
  get available(): number {
    return this.#available
  }

  /** Adds bytes at the end. One writer at a time. */
  async write(bytes: Buffer): Promise<void> {
    for (let done = 0; done < bytes.byteLength;) {
      const { bytesWritten } = await this.#file.write(bytes, done, bytes.byteLength - done, this.#available + done)
      done += bytesWritten
    }
    this.#keep(this.#available, bytes)
    this.#available += bytes.byteLength
    this.#move()
  }

  /** Says that all came and is right. */
  complete(): void {
    this.#isComplete = true
    this.#move()
  }

  /** Says that no more will come: every follower ends with `error`, unless all has come. */
  fail(error: unknown): void {
    if (!this.#isComplete) this.#failure ??= { error }
    this.#move()
  }

  /** Keeps the bytes until `release`. */
  hold(): void {
    this.#holders += 1
  }

  /** Lets go; the last one to do so frees the bytes. */
  async release(): Promise<void> {
    this.#holders -= 1
    if (this.#holders > 0) return
    try {
      // Who took it for a dead process's has removed it already.
      if (this.name !== undefined) await rm(this.#path, { force: true })
    } finally {
      await this.#file.close()
    }
  }

  /** Bytes `start` to `end` (inclusive) as they come. @throws what the spool failed with; the signal's reason */
  async *follow(start: number, end: number, signal: AbortSignal): AsyncGenerator<Buffer> {
    const turns = new Turns(this.#waiting, signal)
    this.hold()
    try {
      for (let at = start; at <= end;) {
        const bytes = await this.#next(at, end, turns)
        at += bytes.byteLength
        yield bytes
      }
    } finally {
      turns.end()
      await this.release()
    }
  }

  /** Writes bytes `start` to `end` (inclusive) to `to` as they come, with back-pressure, without ending it. */
  async send(start: number, end: number, to: Writable, signal: AbortSignal): Promise<void> {
    for await (const bytes of this.follow(start, end, signal)) {
      signal.throwIfAborted()
      if (!to.write(bytes)) await once(to, 'drain', { signal })
    }
  }

  /** Some bytes from `at` on, not beyond `end`, as soon as there are any. */
  async #next(at: number, end: number, turns: Turns): Promise<Buffer> {
    for (;;) {
      const until = Math.min(this.#readable(), end + 1)
      if (at < until) return this.#recentFrom(at, until) ?? (await this.#read(at, until))
      await turns.next()
    }
  }

  async #read(at: number, until: number): Promise<Buffer> {
    const buffer = Buffer.allocUnsafe(Math.min(READ_BYTES, until - at))
    const { bytesRead } = await this.#file.read(buffer, 0, buffer.byteLength, at)
    if (bytesRead === 0) throw new Error('bytes on their way are gone')
    return buffer.subarray(0, bytesRead)
  }

  /** What came a moment ago, for the many who follow closely. */
  #recentFrom(at: number, until: number): Buffer | undefined {
    const piece = this.#recent.findLast(one => one.at <= at)
    return piece === undefined || at >= piece.at + piece.bytes.byteLength
      ? undefined
      : piece.bytes.subarray(at - piece.at, until - piece.at)
  }

  #keep(at: number, bytes: Buffer): void {
    this.#recent.push({ at, bytes })
    this.#recentBytes += bytes.byteLength
    while (this.#recentBytes > RECENT_BYTES) this.#recentBytes -= this.#recent.shift()?.bytes.byteLength ?? 0
  }

  #readable(): number {
    if (this.#failure !== undefined) throw this.#failure.error
    return this.#isComplete ? this.#size : Math.min(this.#available, this.#size - 1)
  }

  #move(): void {
    const waiting = [...this.#waiting]
    this.#waiting.clear()
    for (const wake of waiting) wake()
  }
}

/** Waits of one follower for whatever comes next. */
class Turns {
  readonly #waiting: Set<() => void>
  readonly #signal: AbortSignal
  #wake: (() => void) | undefined
  readonly #onAbort = (): void => this.#wake?.()

  constructor(waiting: Set<() => void>, signal: AbortSignal) {
    this.#waiting = waiting
    this.#signal = signal
    signal.addEventListener('abort', this.#onAbort, { once: true })
  }

  /** @throws the signal's reason */
  async next(): Promise<void> {
    this.#signal.throwIfAborted()
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#wake = resolve
    this.#waiting.add(resolve)
    await promise
    this.#waiting.delete(resolve)
    this.#signal.throwIfAborted()
  }

  end(): void {
    this.#signal.removeEventListener('abort', this.#onAbort)
  }
}

/**
 * Removes files that processes left in `directory` when they died: those not among `living` and not written to for
 * `olderMs`. Answers how many.
 */
export async function removeLeftovers(
  directory: string,
  living: ReadonlySet<string>,
  olderMs: number,
): Promise<number> {
  const dead = (await readdir(directory)).filter(name => name.endsWith(NAMED) && !living.has(name))
  let removed = 0
  for (const name of dead) {
    try {
      const { mtimeMs } = await stat(join(directory, name))
      if (Date.now() - mtimeMs < olderMs) continue
      await unlink(join(directory, name))
      removed += 1
    } catch (error) {
      // Another process was faster.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    }
  }
  return removed
}
