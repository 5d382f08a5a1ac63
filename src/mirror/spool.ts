import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { type FileHandle, open, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { Writable } from 'node:stream'

const READ_BYTES = 256 * 1024

/**
 * Bytes on their way, which many can follow, each at its own pace, while they come. They lie in a file without a name, so
 * a crash leaves nothing. The last byte is held back until the whole is known to be right: nobody takes wrong content
 * for complete.
 */
export class Spool {
  readonly #file: FileHandle
  readonly #size: number
  #available = 0
  #isComplete = false
  #failure: { readonly error: unknown } | undefined
  #moved = Promise.withResolvers<void>()
  #holders = 1

  private constructor(file: FileHandle, size: number) {
    this.#file = file
    this.#size = size
  }

  /** An empty one for `size` bytes, in `directory`; whoever opened it lets go of it. */
  static async open(directory: string, size: number): Promise<Spool> {
    const path = join(directory, randomUUID())
    const file = await open(path, 'wx+')
    try {
      await unlink(path)
      return new Spool(file, size)
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
  async write(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.byteLength;) {
      const { bytesWritten } = await this.#file.write(bytes, done, bytes.byteLength - done, this.#available + done)
      done += bytesWritten
    }
    this.#available += bytes.byteLength
    this.#move()
  }

  /** Says that all came and is right. */
  complete(): void {
    this.#isComplete = true
    this.#move()
  }

  /** Says that no more will come: every follower ends with `error`. */
  fail(error: unknown): void {
    this.#failure ??= { error }
    this.#move()
  }

  /** Keeps the bytes until `release`. */
  hold(): void {
    this.#holders += 1
  }

  /** Lets go; the last one to do so frees the bytes. */
  async release(): Promise<void> {
    this.#holders -= 1
    if (this.#holders === 0) await this.#file.close()
  }

  /** Bytes `start` to `end` (inclusive) as they come. @throws what the spool failed with; the signal's reason */
  async *follow(start: number, end: number, signal: AbortSignal): AsyncGenerator<Buffer> {
    this.hold()
    try {
      for (let at = start; at <= end;) {
        const until = Math.min(this.#readable(), end + 1)
        if (at >= until) {
          await this.#more(signal)
          continue
        }
        const buffer = Buffer.allocUnsafe(Math.min(READ_BYTES, until - at))
        const { bytesRead } = await this.#file.read(buffer, 0, buffer.byteLength, at)
        at += bytesRead
        yield buffer.subarray(0, bytesRead)
      }
    } finally {
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

  #readable(): number {
    if (this.#failure !== undefined) throw this.#failure.error
    return this.#isComplete ? this.#size : Math.min(this.#available, this.#size - 1)
  }

  async #more(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    const gone = Promise.withResolvers<never>()
    const onAbort = (): void => gone.reject(signal.reason as Error)
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      await Promise.race([this.#moved.promise, gone.promise])
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }

  #move(): void {
    this.#moved.resolve()
    this.#moved = Promise.withResolvers<void>()
  }
}
