import { createHash } from 'node:crypto'
import { Readable, type Writable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { type Digest, algorithmOf, digestOf } from '../oci/digest.ts'
import type { BlobSource, Feed } from './blob-source.ts'
import { discard } from './bodies.ts'
import { OwnersFailure } from './peers.ts'
import { Spool } from './spool.ts'
import { UpstreamFailure } from './upstream-failure.ts'

/** The least that an upstream must give, or it is asked anew. */
export interface Pace {
  readonly bytes: number
  /** Milliseconds in which so many bytes must come. */
  readonly ms: number
}

/** What a fetch takes from where, and what becomes of it. */
export interface FetchOptions {
  readonly source: BlobSource
  /** What the upstream is called in messages. */
  readonly host: string
  readonly digest: Digest
  /** Directory for bytes on their way. */
  readonly spoolDirectory: string
  /** Whether they lie there under a name, for other processes to read. */
  readonly isShared: boolean
  /** Bytes of a blob at most. */
  readonly maxBytes: number
  /** A fetch that nobody follows any more goes on where this share of it has come, from 0 to 1. */
  readonly goOnShare: number
  /** How long it waits for someone to follow it, in milliseconds. */
  readonly patienceMs: number
  /** How often a broken transfer is taken up again without the progress of {@link Pace}. */
  readonly retries: number
  readonly pace: Pace
  /** Asked once the upstream has said that it has the blob: whether the bytes are needed from there. */
  readonly isNeeded: () => Promise<boolean>
  /** Stores the content, which is checked on the way; resolves when it is durable. */
  readonly store: (body: Readable, length: number, signal: AbortSignal) => Promise<void>
  /** Told why the content could not be stored, or did not come; those who follow it are told themselves. */
  readonly onFailure: (error: unknown) => void
  /** Ends it. */
  readonly closing: AbortSignal
}

const FIRST_RETRY_MS = 200
/** How often a process that sends nothing is looked after. */
const WATCH_MS = 2_500

/**
 * One blob on its way: its bytes go to all who follow it as they come, and into the store, unless another process has
 * them from the upstream and does that. Goes on where a transfer broke off (RFC 9110 section 14). Content that is not what its digest says reaches neither the store
 * nor the end of anybody's transfer.
 */
export class BlobFetch {
  /** Bytes of the whole. */
  readonly size: number
  /** Settles when the content is stored, or will not be. Never rejects. */
  readonly ended: Promise<void>
  /** Whether it has ended, well or not. */
  isOver = false
  /** Whether it has failed: whoever follows it is told, whoever comes now begins again. */
  isBroken = false
  /** Why it failed, where the upstream is to blame. */
  failure: UpstreamFailure | undefined
  readonly #options: FetchOptions
  readonly #spool: Spool
  readonly #stop: AbortController
  /** Fires when it has to end. */
  readonly #signal: AbortSignal
  #stored: Promise<void> | undefined
  #followers = 0
  #patience: NodeJS.Timeout | undefined

  private constructor(
    options: FetchOptions,
    { size, spool, first }: Opened,
    stop: AbortController,
    signal: AbortSignal,
  ) {
    this.size = size
    this.#options = options
    this.#spool = spool
    this.#stop = stop
    this.#signal = signal
    this.#wait()
    this.ended = this.#run(first)
  }

  /**
   * Begins: there is an answer to take bytes from when this resolves. Undefined where the bytes are not needed, or are
   * there already. The source is its own from here on.
   * @throws UpstreamFailure
   */
  static async begin(options: FetchOptions): Promise<BlobFetch | undefined> {
    try {
      const stop = new AbortController()
      const signal = AbortSignal.any([options.closing, stop.signal])
      const opened = await open(options, signal)
      if (opened !== undefined) return new BlobFetch(options, opened, stop, signal)
    } catch (error) {
      await options.source.close()
      throw error
    }
    await options.source.close()
    return undefined
  }

  /** Sends bytes `start` to `end` (inclusive) as they come. @throws UpstreamFailure when the fetch fails before them */
  async send(start: number, end: number, to: Writable, signal: AbortSignal): Promise<void> {
    this.#followers += 1
    clearTimeout(this.#patience)
    try {
      await this.#spool.send(start, end, to, signal)
    } finally {
      this.#followers -= 1
      if (this.#followers === 0) this.#wait()
    }
  }

  /** Ends it now, unfinished: whoever follows it is told why. */
  stop(why: string): void {
    this.isBroken = true
    // No failure of the upstream, and not to be counted as one.
    this.#stop.abort(new Error(why))
  }

  #wait(): void {
    const { goOnShare, patienceMs, digest, source } = this.#options
    clearTimeout(this.#patience)
    this.#patience = setTimeout(() => {
      // What another process fetches, that one brings to its end.
      const isMostlyDone = source.isOwner && this.#spool.available >= this.size * goOnShare
      if (this.#followers === 0 && !isMostlyDone) this.stop(`nobody waits for ${digest}`)
    }, patienceMs)
  }

  async #run(first: Feed): Promise<void> {
    const { source, host, onFailure } = this.#options
    const signal = this.#signal
    try {
      await this.#receive(first)
      this.#spool.complete()
      if (this.#stored === undefined && (await source.settle(signal))) this.#startStoring()
    } catch (error) {
      this.isBroken = true
      // Before anybody is told: who asks again then shall find nothing of this one.
      await source.close()
      if (error instanceof UpstreamFailure && !signal.aborted) this.failure = error
      this.#spool.fail(signal.aborted ? new UpstreamFailure('failed', `${host}: ${String(signal.reason)}`) : error)
      // The store tells it otherwise.
      if (this.#stored === undefined && !signal.aborted) onFailure(error)
    } finally {
      await this.#stored
      this.isOver = true
      clearTimeout(this.#patience)
      await source.close()
      // Of bytes that nobody reads any more.
      await this.#spool.release().catch(() => undefined)
    }
  }

  /** Stores what has come and what comes; those who follow need no store. */
  #startStoring(): void {
    const signal = this.#signal
    const { store, onFailure } = this.#options
    const body = Readable.from(this.#spool.follow(0, this.size - 1, signal), { objectMode: false })
    // It may fail when the store does not listen any more.
    body.on('error', () => undefined)
    this.#stored = store(body, this.size, signal)
      .catch(onFailure)
      .finally(() => body.destroy())
  }

  async #receive(first: Feed): Promise<void> {
    const { digest, host, retries, source, pace } = this.#options
    const algorithm = algorithmOf(digest)
    const hash = createHash(algorithm)
    let from: Feed | undefined = first
    for (let failures = 0; this.#spool.available < this.size || from !== undefined; from = undefined) {
      const before = this.#spool.available
      try {
        const feed: Feed = from ?? (await source.open(before, this.#signal))
        if (source.isOwner && this.#stored === undefined) {
          this.#startStoring()
          await source.place(this.#spool.name, this.size)
        }
        await this.#take(feed, hash)
        if (this.#spool.available === this.size) break
        throw new UpstreamFailure('failed', `${host} ended ${digest} before its end`)
      } catch (error) {
        this.#signal.throwIfAborted()
        if (error instanceof OwnersFailure) throw error
        if (error instanceof UpstreamFailure && error.kind === 'refused') throw error
        failures = this.#spool.available - before >= pace.bytes ? 1 : failures + 1
        if (failures > retries) throw error
        await delay(FIRST_RETRY_MS * 2 ** (failures - 1), undefined, { signal: this.#signal })
      }
    }
    const actual = digestOf(algorithm, hash.digest('hex'))
    if (actual !== digest) throw new UpstreamFailure('failed', `${host} sent ${actual} as ${digest}`)
  }

  /** Takes what an answer has; of one that began before what we have already, the rest. */
  async #take({ body, start, size, from }: Feed, hash: { update(bytes: Uint8Array): unknown }): Promise<void> {
    const { digest, host, pace, source } = this.#options
    const onStop = (): unknown => body.destroy(this.#signal.reason as Error)
    this.#signal.addEventListener('abort', onStop, { once: true })
    let at = start
    let seen = start
    // The pace of another process is its upstream's, which it watches itself; but it may have stopped.
    const least = from === 'upstream' ? pace.bytes : 1
    const watch = setInterval(
      () => {
        const isSlow = at - seen < least
        seen = at
        if (!isSlow) return
        if (from === 'upstream') {
          body.destroy(new UpstreamFailure('failed', `${host} sends less than ${least} bytes in ${pace.ms / 1000} s`))
        } else {
          void source.hasLost().then(hasLost => hasLost && body.destroy(new Error('who fetched the blob has stopped')))
        }
      },
      from === 'upstream' ? pace.ms : WATCH_MS,
    )
    try {
      if (size !== undefined && size !== this.size) {
        throw new UpstreamFailure('refused', `${digest} changed its size at the upstream`)
      }
      for await (const chunk of body) {
        const bytes = chunk as Buffer
        const fresh = bytes.subarray(Math.min(Math.max(this.#spool.available - at, 0), bytes.byteLength))
        at += bytes.byteLength
        if (at > this.size) throw new UpstreamFailure('refused', `${digest} is longer than was said`)
        if (fresh.byteLength === 0) continue
        await this.#spool.write(fresh)
        hash.update(fresh)
      }
    } finally {
      clearInterval(watch)
      this.#signal.removeEventListener('abort', onStop)
      discard(body)
    }
  }
}

/** What no bytes have as their digest, by the algorithm of this one. */
function emptyDigest(digest: Digest): Digest {
  const algorithm = algorithmOf(digest)
  return digestOf(algorithm, createHash(algorithm).digest('hex'))
}

/** What a fetch begins with. */
interface Opened {
  readonly size: number
  readonly spool: Spool
  readonly first: Feed
}

async function open(options: FetchOptions, signal: AbortSignal): Promise<Opened | undefined> {
  const { source, host, digest, maxBytes, spoolDirectory, isShared } = options
  const first = await source.open(0, signal)
  try {
    const { size = await source.size() } = first
    if (size === undefined) throw new UpstreamFailure('failed', `${host} does not say how large ${digest} is`)
    if (size > maxBytes) {
      throw new UpstreamFailure('refused', `${digest} has ${size} bytes, more than the mirror's limit of ${maxBytes}`)
    }
    if (size === 0 && digest !== emptyDigest(digest)) {
      throw new UpstreamFailure('failed', `${host} sends nothing as ${digest}`)
    }
    if (first.from === 'store' || (first.from === 'upstream' && !(await options.isNeeded()))) {
      discard(first.body)
      return undefined
    }
    return { size, spool: await Spool.open(spoolDirectory, size, isShared), first }
  } catch (error) {
    discard(first.body)
    throw error
  }
}
