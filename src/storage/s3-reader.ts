import type { Writable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { BlobMissing, BodyAborted, type ByteRange, StoreUnavailable, type StorageKey } from './blob-store.ts'
import type { ObjectBody, S3Bucket } from './s3-bucket.ts'

/** Times in a row that a transfer may break without one byte having come, beyond the retries of each request. */
const FRUITLESS_TRIES = 4
const PAUSE_MS = 100
/** Bytes that may wait in the destination. */
const MOST_WAITING = 512 * 1024

/**
 * The bytes of an object, or a range of it. A transfer that breaks is taken up again where it was: what is under a key
 * never changes.
 * @throws BlobMissing; BodyAborted when `signal` fires; StoreUnavailable when the range is not there.
 */
export async function* readObject(
  bucket: S3Bucket,
  key: StorageKey,
  range: ByteRange | undefined,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  let position = range?.start ?? 0
  let end = range?.end
  let fruitless = 0
  for (;;) {
    if (signal.aborted) throw cancelled(signal)
    const { body, length } = await opened(bucket, key, position, end, signal)
    end ??= position + length - 1
    if (length !== end - position + 1) {
      body.destroy()
      throw new StoreUnavailable(`S3 offers ${length} bytes where ${end - position + 1} were asked for`)
    }
    const before = position
    let failure: unknown
    try {
      for await (const chunk of body) {
        const bytes = chunk as Uint8Array
        position += bytes.byteLength
        yield bytes
        if (signal.aborted) throw cancelled(signal)
      }
    } catch (error) {
      if (signal.aborted) throw cancelled(signal)
      failure = error
    } finally {
      body.destroy()
    }
    if (position > end) return
    fruitless = position > before ? 0 : fruitless + 1
    if (fruitless >= FRUITLESS_TRIES) {
      throw new StoreUnavailable(`S3 broke off ${end - position + 1} bytes before the end`, { cause: failure })
    }
    await delay(PAUSE_MS * 2 ** fruitless)
  }
}

async function opened(
  bucket: S3Bucket,
  key: StorageKey,
  start: number,
  end: number | undefined,
  signal: AbortSignal,
): Promise<ObjectBody> {
  try {
    return await bucket.get(key, start, end, signal)
  } catch (error) {
    throw signal.aborted && !(error instanceof BlobMissing) ? cancelled(signal) : error
  }
}

function cancelled(signal: AbortSignal): BodyAborted {
  return new BodyAborted('The transfer was cancelled', { cause: signal.reason })
}

/**
 * Writes `chunks` to `to` with back-pressure, without ending `to`; destroys it when they break off after the first byte,
 * for its receiver to notice. `chunks` is given a signal that fires when nobody wants them any more.
 * @throws what `chunks` throws; BodyAborted when `signal` fires or `to` closes or fails.
 */
export async function sendChunks(
  chunks: (signal: AbortSignal) => AsyncIterable<Uint8Array>,
  to: Writable,
  signal: AbortSignal,
): Promise<void> {
  const stop = new AbortController()
  let waiting = 0
  let wake: (() => void) | undefined
  const halt = (message: string, cause: unknown): void => {
    if (!stop.signal.aborted) stop.abort(new BodyAborted(message, { cause }))
    wake?.()
  }
  const onClose = (): void => halt('The destination closed', to.errored ?? undefined)
  const onError = (error: Error): void => halt('The destination failed', error)
  const onSignal = (): void => halt('The transfer was cancelled', signal.reason)
  const untilFewerWait = async (bytes: number): Promise<void> => {
    while (waiting >= bytes && !stop.signal.aborted) {
      await new Promise<void>(resolve => {
        wake = resolve
      })
    }
    stop.signal.throwIfAborted()
  }

  signal.addEventListener('abort', onSignal)
  to.on('close', onClose).on('error', onError)
  if (signal.aborted) onSignal()
  else if (to.destroyed) onClose()
  let sent = 0
  try {
    for await (const chunk of chunks(stop.signal)) {
      const bytes = chunk.byteLength
      sent += bytes
      waiting += bytes
      to.write(chunk, error => {
        waiting -= bytes
        if (error) onError(error)
        wake?.()
      })
      await untilFewerWait(MOST_WAITING)
    }
    await untilFewerWait(1)
  } catch (error) {
    stop.signal.throwIfAborted()
    if (sent > 0) to.destroy(error instanceof Error ? error : undefined)
    throw error
  } finally {
    signal.removeEventListener('abort', onSignal)
    // A failed write calls back before the stream emits its error, which must still find a listener.
    setImmediate(() => to.off('close', onClose).off('error', onError))
  }
}
