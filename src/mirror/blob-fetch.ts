import { createHash } from 'node:crypto'
import { Readable, type Writable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { type Digest, algorithmOf, digestOf } from '../oci/digest.ts'
import { discard } from './bodies.ts'
import type { UpstreamHealth } from './health.ts'
import { Spool } from './spool.ts'
import type { Upstream, UpstreamBlob } from './upstream.ts'
import { UpstreamFailure } from './upstream-failure.ts'
import { within } from './within.ts'

/** What a fetch takes from where, and what becomes of it. */
export interface FetchOptions {
  readonly upstream: Upstream
  readonly health: UpstreamHealth
  /** The repository's name at the upstream. */
  readonly repository: string
  readonly digest: Digest
  /** Directory for bytes on their way. */
  readonly spoolDirectory: string
  /** Bytes of a blob at most. */
  readonly maxBytes: number
  /** A fetch that nobody follows any more goes on where this share of it has come, from 0 to 1. */
  readonly goOnShare: number
  /** How long it waits for someone to follow it, in milliseconds. */
  readonly patienceMs: number
  /** How often a broken transfer is taken up again without a byte of progress. */
  readonly retries: number
  /** Asked once the upstream has said that it has the blob: whether the bytes are needed from there. */
  readonly isNeeded: () => Promise<boolean>
  /** Stores the content, which is checked on the way; resolves when it is durable. */
  readonly store: (body: Readable, length: number, signal: AbortSignal) => Promise<void>
  /** Told why the content could not be stored, or did not come; those who follow it are told themselves. */
  readonly onFailure: (error: unknown) => void
}

/** An upstream that has not begun to answer for this long gives nothing. */
const BEGIN_MS = 30_000
const FIRST_RETRY_MS = 200

/**
 * One blob on its way from an upstream: its bytes go to all who follow it as they come, and into the store. Goes on
 * where a transfer broke off (RFC 9110 section 14). Content that is not what its digest says reaches neither the store
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
  readonly #options: FetchOptions
  readonly #spool: Spool
  readonly #stop = new AbortController()
  #followers = 0
  #patience: NodeJS.Timeout | undefined

  private constructor(options: FetchOptions, size: number, spool: Spool, first: UpstreamBlob) {
    this.size = size
    this.#options = options
    this.#spool = spool
    this.#wait()
    this.ended = this.#run(first)
  }

  /** Begins: the upstream has answered when this resolves. Undefined where the bytes are not needed. @throws UpstreamFailure */
  static async begin(options: FetchOptions): Promise<BlobFetch | undefined> {
    const { upstream, health, repository, digest, maxBytes, spoolDirectory } = options
    const asked = async <T>(ask: (signal: AbortSignal) => Promise<T>): Promise<T> =>
      await health.run(() => within(upstream.host, BEGIN_MS, ask))
    const first = await asked(signal => upstream.blob(repository, digest, 0, signal))
    try {
      const { size = await asked(signal => upstream.blobSize(repository, digest, signal)) } = first
      if (size === undefined)
        throw new UpstreamFailure('failed', `${upstream.host} does not say how large ${digest} is`)
      if (size > maxBytes) {
        throw new UpstreamFailure('refused', `${digest} has ${size} bytes, more than the mirror's limit of ${maxBytes}`)
      }
      if (size === 0 && digest !== emptyDigest(digest)) {
        throw new UpstreamFailure('failed', `${upstream.host} sends nothing as ${digest}`)
      }
      if (!(await options.isNeeded())) {
        discard(first.body)
        return undefined
      }
      return new BlobFetch(options, size, await Spool.open(spoolDirectory, size), first)
    } catch (error) {
      discard(first.body)
      throw error
    }
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
    const { goOnShare, patienceMs, digest } = this.#options
    clearTimeout(this.#patience)
    this.#patience = setTimeout(() => {
      const isMostlyDone = this.#spool.available >= this.size * goOnShare
      if (this.#followers === 0 && !isMostlyDone) this.stop(`nobody waits for ${digest}`)
    }, patienceMs)
  }

  async #run(first: UpstreamBlob): Promise<void> {
    const { signal } = this.#stop
    const whole = Readable.from(this.#spool.follow(0, this.size - 1, signal), { objectMode: false })
    // It may fail when the store does not listen any more.
    whole.on('error', () => undefined)
    // Those who follow need no store.
    const stored = this.#options.store(whole, this.size, signal).catch(this.#options.onFailure)
    try {
      await this.#receive(first)
      this.#spool.complete()
    } catch (error) {
      this.isBroken = true
      const { host } = this.#options.upstream
      this.#spool.fail(signal.aborted ? new UpstreamFailure('failed', `${host}: ${String(signal.reason)}`) : error)
    } finally {
      await stored
      this.isOver = true
      whole.destroy()
      clearTimeout(this.#patience)
      // Of bytes that nobody reads any more.
      await this.#spool.release().catch(() => undefined)
    }
  }

  async #receive(first: UpstreamBlob): Promise<void> {
    const { digest, upstream, retries } = this.#options
    const algorithm = algorithmOf(digest)
    const hash = createHash(algorithm)
    let from: UpstreamBlob | undefined = first
    for (let failures = 0; this.#spool.available < this.size || from !== undefined; from = undefined) {
      const before = this.#spool.available
      try {
        await this.#take(from ?? (await this.#again()), hash)
        if (this.#spool.available === this.size) break
        throw new UpstreamFailure('failed', `${upstream.host} ended ${digest} before its end`)
      } catch (error) {
        this.#stop.signal.throwIfAborted()
        if (error instanceof UpstreamFailure && error.kind === 'refused') throw error
        failures = this.#spool.available > before ? 1 : failures + 1
        if (failures > retries) throw error
        await delay(FIRST_RETRY_MS * 2 ** (failures - 1), undefined, { signal: this.#stop.signal })
      }
    }
    const actual = digestOf(algorithm, hash.digest('hex'))
    if (actual !== digest) throw new UpstreamFailure('failed', `${upstream.host} sent ${actual} as ${digest}`)
  }

  async #again(): Promise<UpstreamBlob> {
    const { upstream, health, repository, digest } = this.#options
    return await health.run(() =>
      within(upstream.host, BEGIN_MS, signal =>
        upstream.blob(repository, digest, this.#spool.available, AbortSignal.any([signal, this.#stop.signal])),
      ),
    )
  }

  /** Takes what an answer has; of one that began before what we have already, the rest. */
  async #take({ body, start, size }: UpstreamBlob, hash: { update(bytes: Uint8Array): unknown }): Promise<void> {
    const onStop = (): unknown => body.destroy(this.#stop.signal.reason as Error)
    this.#stop.signal.addEventListener('abort', onStop, { once: true })
    try {
      if (size !== undefined && size !== this.size) {
        throw new UpstreamFailure('refused', `${this.#options.digest} changed its size at the upstream`)
      }
      let at = start
      for await (const chunk of body) {
        const bytes = chunk as Buffer
        const fresh = bytes.subarray(Math.min(Math.max(this.#spool.available - at, 0), bytes.byteLength))
        at += bytes.byteLength
        if (at > this.size) throw new UpstreamFailure('refused', `${this.#options.digest} is longer than was said`)
        if (fresh.byteLength === 0) continue
        await this.#spool.write(fresh)
        hash.update(fresh)
      }
    } finally {
      this.#stop.signal.removeEventListener('abort', onStop)
      discard(body)
    }
  }
}

/** What no bytes have as their digest, by the algorithm of this one. */
function emptyDigest(digest: Digest): Digest {
  const algorithm = algorithmOf(digest)
  return digestOf(algorithm, createHash(algorithm).digest('hex'))
}
