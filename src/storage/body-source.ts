import type { Readable } from 'node:stream'
import { BodyAborted } from './blob-store.ts'

/** What {@link BodySource.next} answers when someone asked for attention before bytes came. */
export const interrupted = Symbol('interrupted')

/**
 * Reads a body chunk by chunk, when asked: in between it is paused. It is never destroyed here, and after `release` no
 * listener is left on it.
 */
export class BodySource {
  readonly #body: Readable
  readonly #signal: AbortSignal
  readonly #stop = new AbortController()
  #failure: BodyAborted | undefined
  #attention = false
  #wake: (() => void) | undefined

  constructor(body: Readable, signal: AbortSignal) {
    this.#body = body
    this.#signal = signal
    signal.addEventListener('abort', this.#onSignal)
    body.on('error', this.#onError).on('close', this.#onClose).on('end', this.#onReady).on('readable', this.#onReady)
    if (signal.aborted) this.#onSignal()
    else if (body.destroyed) this.#onClose()
  }

  /** Fires when the body failed or the transfer was cancelled; `next` throws why. */
  get stopped(): AbortSignal {
    return this.#stop.signal
  }

  /** The next chunk; undefined at the end. @throws BodyAborted */
  async next(): Promise<Uint8Array | typeof interrupted | undefined> {
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure
      if (this.#attention) {
        this.#attention = false
        return interrupted
      }
      const chunk = this.#body.read() as Uint8Array | null
      if (chunk !== null) return chunk
      if (this.#body.readableEnded) return undefined
      await new Promise<void>(resolve => {
        this.#wake = resolve
      })
    }
  }

  /** Makes `next`, now or when it is called, answer {@link interrupted}. */
  interrupt(): void {
    this.#attention = true
    this.#wake?.()
  }

  /** Lets go of the body. */
  release(): void {
    this.#signal.removeEventListener('abort', this.#onSignal)
    this.#body
      .off('error', this.#onError)
      .off('close', this.#onClose)
      .off('end', this.#onReady)
      .off('readable', this.#onReady)
  }

  readonly #onReady = (): void => this.#wake?.()
  readonly #onError = (error: Error): void => this.#fail('The body failed', error)
  readonly #onSignal = (): void => this.#fail('The transfer was cancelled', this.#signal.reason)
  readonly #onClose = (): void => {
    if (!this.#body.readableEnded) this.#fail('The body closed before its end', this.#body.errored ?? undefined)
  }

  #fail(message: string, cause: unknown): void {
    this.#failure ??= new BodyAborted(message, { cause })
    this.#stop.abort(this.#failure)
    this.#wake?.()
  }
}
