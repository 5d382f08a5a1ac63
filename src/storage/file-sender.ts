import type { FileHandle } from 'node:fs/promises'
import type { Writable } from 'node:stream'
import { BodyAborted, StoreUnavailable } from './blob-store.ts'

export interface Dispatch {
  readonly file: FileHandle
  /** Where the first byte to send is. */
  readonly start: number
  /** Bytes to send. */
  readonly length: number
  readonly to: Writable
  readonly signal: AbortSignal
  /** The most bytes each of the two buffers may have. */
  readonly bufferBytes: number
}

/**
 * Writes `length` bytes of the file to `to`, reading into two alternating buffers, each used again only when `to`
 * has let go of it. Neither ends `to` nor closes the file. Resolves when `to` has taken the last byte.
 * @throws BodyAborted when `signal` fires or `to` closes or fails.
 * @throws StoreUnavailable when the file ends too soon; once a byte was sent, `to` is destroyed for its
 * receiver to notice.
 */
export async function dispatch({ file, start, length, to, signal, bufferBytes }: Dispatch): Promise<void> {
  const size = Math.min(bufferBytes, length)
  const buffers: Buffer[] = []
  let busy = 0
  let failure: BodyAborted | undefined
  let wake: (() => void) | undefined

  const stop = (message: string, cause: unknown): void => {
    failure ??= new BodyAborted(message, { cause })
    wake?.()
  }
  const onClose = (): void => stop('The destination closed', to.errored ?? undefined)
  const onError = (error: Error): void => stop('The destination failed', error)
  const onSignal = (): void => stop('The transfer was cancelled', signal.reason)
  const released = (error?: Error | null): void => {
    busy -= 1
    if (error) onError(error)
    wake?.()
  }
  // Writes end in the order in which they began, so fewer than n busy means that the older buffer is free.
  const fewerBusyThan = async (limit: number): Promise<void> => {
    while (failure === undefined && busy >= limit) {
      await new Promise<void>(resolve => {
        wake = resolve
      })
    }
    if (failure !== undefined) throw failure
  }

  signal.addEventListener('abort', onSignal)
  to.on('close', onClose).on('error', onError)
  if (signal.aborted) onSignal()
  else if (to.destroyed) onClose()
  let sent = 0
  try {
    for (let turn = 0; sent < length; turn = 1 - turn) {
      await fewerBusyThan(2)
      const buffer = (buffers[turn] ??= Buffer.allocUnsafeSlow(Math.min(size, length - sent)))
      const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.byteLength, length - sent), start + sent)
      if (bytesRead === 0) throw new StoreUnavailable(`A blob's file ended ${length - sent} bytes too soon`)
      if (failure !== undefined) throw failure as BodyAborted
      sent += bytesRead
      busy += 1
      to.write(buffer.subarray(0, bytesRead), released)
    }
    await fewerBusyThan(1)
  } catch (error) {
    if (sent > 0 && !(error instanceof BodyAborted)) to.destroy(error instanceof Error ? error : undefined)
    throw error
  } finally {
    signal.removeEventListener('abort', onSignal)
    // A failed write calls back before the stream emits its error, which must still find a listener.
    setImmediate(() => to.off('close', onClose).off('error', onError))
  }
}
