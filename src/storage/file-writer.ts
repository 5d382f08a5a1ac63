import type { FileHandle } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import { BodyAborted, StoreUnavailable, type Observer } from './blob-store.ts'
import { guarded } from './file-support.ts'

const syncEvery = 64 * 1024 * 1024
const writesInFlight = 2
// Many tiny chunks cost more memory than their bytes.
const mostChunks = 1024

export interface Reception {
  /** Open for writing and exactly `offset` bytes long. */
  readonly file: FileHandle
  readonly offset: number
  readonly body: Readable
  readonly signal: AbortSignal
  readonly observe: Observer
  /** Bytes to gather before they are written, asked again for each chunk. */
  readonly gather: () => number
  /** Makes durable what was written to the file until now. */
  readonly sync: () => Promise<void>
  /** Told each durable offset, never twice at a time. */
  readonly onDurable: (offset: number) => Promise<void>
}

/** Writes buffers at successive positions, syncing behind itself. */
class PositionedWriter {
  readonly #reception: Reception
  readonly #onChange: () => void
  // In the order of their positions.
  readonly #flying: { readonly end: number; written: boolean }[] = []
  #position: number
  #written: number
  #synced: number
  #syncing: Promise<void> | undefined
  #failure: { readonly error: unknown } | undefined
  #idle: (() => void) | undefined

  /** @param onChange called when `busy` or `failure` may have changed */
  constructor(reception: Reception, onChange: () => void) {
    this.#reception = reception
    this.#onChange = onChange
    this.#position = this.#written = this.#synced = reception.offset
  }

  /** True while no further write may begin. */
  get busy(): boolean {
    return this.#flying.length >= writesInFlight || this.#written - this.#synced >= 2 * syncEvery
  }

  get failure(): { readonly error: unknown } | undefined {
    return this.#failure
  }

  write(chunks: Uint8Array[], bytes: number): void {
    const flight = { end: this.#position + bytes, written: false }
    this.#flying.push(flight)
    const position = this.#position
    this.#position = flight.end
    void this.#writeAll(chunks, bytes, position).then(
      () => {
        flight.written = true
        this.#landed()
      },
      (error: unknown) => {
        this.#flying.splice(this.#flying.indexOf(flight), 1)
        this.#fail(error)
        this.#landed()
      },
    )
  }

  /** Resolves when no write and no sync is in flight. @throws the first failure of either */
  async settle(): Promise<void> {
    if (this.#flying.some(flight => !flight.written)) {
      await new Promise<void>(resolve => {
        this.#idle = resolve
      })
    }
    while (this.#syncing !== undefined) await this.#syncing
    if (this.#failure !== undefined) throw this.#failure.error
  }

  /** Makes everything written durable and tells it. Resolves to the offset of the end. */
  async end(): Promise<number> {
    await this.settle()
    if (this.#synced < this.#position || this.#position === this.#reception.offset) await guarded(this.#reception.sync)
    await this.#reception.onDurable(this.#position)
    return this.#position
  }

  async #writeAll(chunks: Uint8Array[], bytes: number, position: number): Promise<void> {
    let rest = chunks
    let left = bytes
    for (;;) {
      const [buffers, at] = [rest, position + bytes - left]
      const { bytesWritten } = await guarded(() => this.#reception.file.writev(buffers, at))
      left -= bytesWritten
      if (left === 0) return
      if (bytesWritten === 0) throw new StoreUnavailable('The file system took no byte of a write')
      rest = without(rest, bytesWritten)
    }
  }

  #landed(): void {
    if (this.#failure === undefined) {
      while (this.#flying[0]?.written === true) {
        this.#written = this.#flying[0].end
        this.#flying.shift()
      }
      this.#keepUp()
    }
    if (this.#flying.every(flight => flight.written)) this.#idle?.()
    this.#onChange()
  }

  #keepUp(): void {
    if (this.#failure !== undefined || this.#written - this.#synced < syncEvery) return
    this.#syncing ??= this.#syncBehind(this.#written)
  }

  async #syncBehind(offset: number): Promise<void> {
    try {
      await guarded(this.#reception.sync)
      await this.#reception.onDurable(offset)
      this.#synced = offset
    } catch (error) {
      this.#fail(error)
    }
    this.#syncing = undefined
    this.#keepUp()
    this.#onChange()
  }

  #fail(error: unknown): void {
    this.#failure ??= { error }
  }
}

function without(chunks: Uint8Array[], bytes: number): Uint8Array[] {
  let skip = bytes
  let index = 0
  for (const chunk of chunks) {
    if (chunk.byteLength > skip) break
    skip -= chunk.byteLength
    index += 1
  }
  const [first, ...others] = chunks.slice(index)
  return first === undefined ? [] : [first.subarray(skip), ...others]
}

/**
 * Writes all of `body` to the file after `offset`. The body is paused while two writes are in flight or two sync
 * intervals (128 MiB) are not durable yet; it is never destroyed here, and after a failure it is left paused.
 * Resolves to the durable offset.
 * @throws StoreUnavailable when the file system fails; what `observe` or `onDurable` throws is passed on as it is.
 * @throws BodyAborted after making durable and telling what was received, when the body fails, closes early or `signal` fires.
 */
export async function receive(reception: Reception): Promise<number> {
  const { body, signal, observe } = reception
  let chunks: Uint8Array[] = []
  let bytes = 0
  let aborted: BodyAborted | undefined
  let halted = false
  let wake: () => void = () => {}
  const stopped = new Promise<void>(resolve => {
    wake = resolve
  })
  // A body that flows without a listener would lose what it has.
  const halt = (): void => {
    halted = true
    if (!body.readableEnded) body.pause()
    wake()
  }
  const thrown: unknown[] = []

  const writer = new PositionedWriter(reception, () => {
    if (halted) return
    if (writer.failure !== undefined) halt()
    else if (!writer.busy && body.isPaused()) body.resume()
  })
  const flush = (): void => {
    if (bytes === 0) return
    writer.write(chunks, bytes)
    chunks = []
    bytes = 0
  }
  const abort = (message: string, cause: unknown): void => {
    aborted ??= new BodyAborted(message, { cause })
    halt()
  }
  const onData = (chunk: Uint8Array): void => {
    try {
      observe(chunk)
    } catch (error) {
      thrown.push(error)
      halt()
      return
    }
    chunks.push(chunk)
    bytes += chunk.byteLength
    if (bytes >= reception.gather() || chunks.length >= mostChunks) flush()
    if (writer.busy) body.pause()
  }
  const onEnd = (): void => halt()
  const onError = (error: Error): void => abort('The body failed', error)
  const onClose = (): void => {
    if (!body.readableEnded) abort('The body closed before its end', body.errored ?? undefined)
  }
  const onSignal = (): void => abort('The transfer was cancelled', signal.reason)

  if (signal.aborted) onSignal()
  else if (body.readableEnded) onEnd()
  else if (body.destroyed) onClose()
  else {
    signal.addEventListener('abort', onSignal)
    body.on('error', onError).on('close', onClose).on('end', onEnd).on('data', onData)
    // A body that was paused before does not begin to flow for a listener alone.
    body.resume()
  }
  await stopped
  signal.removeEventListener('abort', onSignal)
  body.off('error', onError).off('close', onClose).off('end', onEnd).off('data', onData)

  await writer.settle()
  if (thrown.length > 0) throw thrown[0]
  flush()
  const end = await writer.end()
  if (aborted !== undefined) throw aborted as BodyAborted
  return end
}
