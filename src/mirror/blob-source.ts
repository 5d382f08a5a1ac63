import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { BlobInfo } from '../registry/blobs.ts'
import type { FetchLeases, HeldFetch, OtherFetch } from '../registry/fetch-leases.ts'
import type { Registry } from '../registry/registry.ts'
import type { Mirror } from './mirror.ts'
import type { Followed, PeerAnswer, Peers } from './peers.ts'
import { followFile } from './shared-directory.ts'
import type { Slots } from './slots.ts'
import type { UpstreamBlob } from './upstream.ts'
import { UpstreamFailure, WrongRange } from './upstream-failure.ts'
import { within } from './within.ts'

/** How processes share what they fetch. */
export interface Sharing {
  readonly leases: FetchLeases
  readonly peers: Peers
  /** Identity of the spool directory, where files in it have names. */
  readonly directory: string | undefined
}

/** Where the bytes of one blob may come from. */
export interface BlobSourceOptions {
  readonly mirror: Mirror
  /** The repository's name at the upstream. */
  readonly repository: string
  readonly name: RepositoryName
  readonly digest: Digest
  readonly copies: Pick<Registry, 'sendBlob'>
  /** The blob, once somebody has stored it. */
  readonly findStored: () => Promise<BlobInfo | undefined>
  /** How many are fetched from the upstream at a time. */
  readonly slots: Slots
  /** How long one waits for its turn, in milliseconds. */
  readonly turnMs: number
  /** Absent where this process is alone. */
  readonly sharing: Sharing | undefined
  readonly spoolDirectory: string
  /** Told as soon as this process is the one that fetches. */
  readonly onHeld: (fetch: HeldFetch) => void
}

/** Bytes of a blob under way, and who gives them. */
export interface Feed extends UpstreamBlob {
  readonly from: 'upstream' | 'process' | 'store'
}

/** An upstream that has not begun to answer for this long gives nothing. */
const BEGIN_MS = 30_000
/** A process that cannot be reached is left to itself after this long, though its lease runs: this one fetches as well. */
const ALONE_MS = 15_000
/** Whose process is another by now, says for this long that it does not fetch it; one that has just begun does not. */
const DISOWNED_MS = 2_000
/** How often a process that sends nothing is looked after. */
const WATCH_MS = 2_500
const POLL_MS = 50
const SETTLE_POLL_MS = 250
/** Another process may take this long to store what it has. */
const SETTLE_MS = 10 * 60_000

/**
 * The bytes of one blob, from wherever they can be had: from the process that fetches it, else from the upstream, which
 * makes this process the one that fetches; from the store as soon as they are there.
 */
export class BlobSource {
  readonly #options: BlobSourceOptions
  #held: HeldFetch | undefined
  #freeSlot: (() => void) | undefined
  #followed: Followed | undefined
  #takesRanges = true
  #isAlone: boolean

  constructor(options: BlobSourceOptions) {
    this.#options = options
    this.#isAlone = options.sharing === undefined
  }

  /** Whether this process fetches from the upstream, so that it has to store what comes. */
  get isOwner(): boolean {
    return this.#held !== undefined || this.#isAlone
  }

  /** Bytes from `start` on, or from before it. @throws UpstreamFailure; the signal's reason */
  async open(start: number, signal: AbortSignal): Promise<Feed> {
    const { sharing, name, digest } = this.#options
    const rest = start === 0 || sharing === undefined ? undefined : await this.#options.findStored()
    if (rest !== undefined) return this.#fromStore(rest, start, signal)
    const again = await this.#followOn(start, signal)
    if (typeof again === 'object') return again
    let dead = again === 'dead' ? this.#followed?.id : undefined
    let denied: { readonly id: string; readonly since: number } | undefined
    for (const since = performance.now(); sharing !== undefined && !this.isOwner;) {
      signal.throwIfAborted()
      const fetch = await sharing.leases.take(name, digest, dead)
      if (fetch.kind === 'held') this.#hold(fetch)
      // Looked for after the lease was taken: whoever had it before may have stored the blob since it was asked for.
      const stored = await this.#options.findStored()
      if (stored !== undefined) return this.#fromStore(stored, start, signal)
      if (fetch.kind === 'held') break
      const feed = await this.#fromProcess(sharing, fetch, start, signal)
      if (typeof feed === 'object') return feed
      if (feed !== 'gone') denied = undefined
      else if (denied?.id !== fetch.id) denied = { id: fetch.id, since: performance.now() }
      const isDisowned = denied !== undefined && performance.now() - denied.since > DISOWNED_MS
      dead = feed === 'dead' || isDisowned ? fetch.id : undefined
      this.#isAlone = feed === 'out of reach' || performance.now() - since > ALONE_MS
      if (dead === undefined && !this.#isAlone) await delay(POLL_MS, undefined, { signal })
    }
    return await this.#fromUpstream(start, signal)
  }

  /** What the upstream says of the size in a HEAD. @throws UpstreamFailure */
  async size(): Promise<number | undefined> {
    const { repository, digest } = this.#options
    const { upstream, health } = this.#options.mirror
    return await health.run(() =>
      within(upstream.host, BEGIN_MS, signal => upstream.blobSize(repository, digest, signal)),
    )
  }

  /** Whether the process that is followed has lost the fetch. Never fails: false where it cannot be told. */
  async hasLost(): Promise<boolean> {
    return this.#followed !== undefined && (await this.#hasEnded(this.#followed.id))
  }

  /** Tells the others in which file of a directory they share with us the bytes lie. */
  async place(file: string | undefined, size: number): Promise<void> {
    if (file !== undefined) await this.#held?.place(file, size)
  }

  /**
   * Waits until whoever fetches the blob has stored it; true where that is up to this process: its owner has gone.
   * @throws the signal's reason
   */
  async settle(signal: AbortSignal): Promise<boolean> {
    const { sharing, name, digest, findStored } = this.#options
    for (const since = performance.now(); performance.now() - since < SETTLE_MS;) {
      signal.throwIfAborted()
      if (this.isOwner || sharing === undefined) return true
      if ((await findStored()) !== undefined) return false
      if ((await sharing.leases.find(name, digest)) === undefined) {
        const fetch = await sharing.leases.take(name, digest)
        if (fetch.kind === 'held') {
          this.#hold(fetch)
          return (await findStored()) === undefined
        }
      }
      await delay(SETTLE_POLL_MS, undefined, { signal })
    }
    return false
  }

  /** Lets go of what it holds: the lease and the slot. Never fails. */
  async close(): Promise<void> {
    this.#freeSlot?.()
    await this.#held?.release()
  }

  async #hasEnded(id: string): Promise<boolean> {
    const { sharing, name, digest } = this.#options
    try {
      return (await sharing?.leases.find(name, digest))?.id !== id
    } catch {
      return false
    }
  }

  #hold(fetch: HeldFetch): void {
    this.#held = fetch
    this.#options.onHeld(fetch)
  }

  async #fromUpstream(start: number, signal: AbortSignal): Promise<Feed> {
    const { mirror, slots, turnMs } = this.#options
    const { upstream, health } = mirror
    this.#freeSlot ??= await slots.take(turnMs, signal)
    if (this.#freeSlot === undefined) {
      throw new UpstreamFailure('failed', `as many blobs are being fetched from ${upstream.host} as may be at a time`)
    }
    try {
      return await health.run(() => within(upstream.host, BEGIN_MS, late => this.#request(start, signal, late)))
    } catch (error) {
      if (!(error instanceof WrongRange) || start === 0 || !this.#takesRanges) throw error
      this.#takesRanges = false
      return await this.#fromUpstream(start, signal)
    }
  }

  async #request(start: number, signal: AbortSignal, late: AbortSignal): Promise<Feed> {
    const { mirror, repository, digest } = this.#options
    const either = AbortSignal.any([signal, late])
    return {
      from: 'upstream',
      ...(await mirror.upstream.blob(repository, digest, this.#takesRanges ? start : 0, either)),
    }
  }

  #fromStore(blob: BlobInfo, start: number, signal: AbortSignal): Feed {
    const body = new PassThrough()
    const range = start >= blob.size ? undefined : { start, end: blob.size - 1 }
    const sent = range === undefined ? Promise.resolve() : this.#options.copies.sendBlob(blob, range, body, signal)
    void sent.then(
      () => body.end(),
      (error: unknown) => body.destroy(error as Error),
    )
    return { from: 'store', body, start, size: blob.size }
  }

  /** Goes on with the fetch that was followed, whatever the index says of it now: it may have failed for all. */
  async #followOn(start: number, signal: AbortSignal): Promise<Feed | PeerAnswer['kind'] | undefined> {
    const { sharing } = this.#options
    if (sharing === undefined || this.#followed === undefined || this.isOwner) return undefined
    return await this.#ask(sharing.peers, this.#followed, start, signal)
  }

  async #ask(
    peers: Peers,
    fetch: Followed,
    start: number,
    signal: AbortSignal,
  ): Promise<Feed | Exclude<PeerAnswer['kind'], 'bytes' | 'failed'>> {
    const lost = new AbortController()
    // One that was stopped, or hangs, accepts connections and answers nothing.
    const watch = setInterval(() => {
      void this.#hasEnded(fetch.id).then(hasEnded => hasEnded && lost.abort())
    }, WATCH_MS)
    let answer: PeerAnswer
    try {
      answer = await peers.open(fetch, start, AbortSignal.any([signal, lost.signal]))
    } catch (error) {
      if (!lost.signal.aborted) throw error
      return 'silent'
    } finally {
      clearInterval(watch)
    }
    if (answer.kind === 'failed') throw answer.failure
    if (answer.kind !== 'bytes') return answer.kind
    this.#followed = fetch
    return { from: 'process', body: answer.body, start, size: answer.size }
  }

  /**
   * `dead`: nobody is there any more; `gone`: whoever is there does not fetch it; `out of reach`: they share nothing with
   * us; `later`: it cannot be told yet.
   */
  async #fromProcess(
    sharing: Sharing,
    fetch: OtherFetch,
    start: number,
    signal: AbortSignal,
  ): Promise<Feed | 'dead' | 'gone' | 'out of reach' | 'later'> {
    const { id, key, address } = fetch
    if (address === null) return await this.#fromDirectory(sharing, fetch, start, signal)
    const answer = await this.#ask(sharing.peers, { id, key, address }, start, signal)
    return answer === 'silent' ? 'later' : answer
  }

  async #fromDirectory(
    { leases, directory }: Sharing,
    fetch: OtherFetch,
    start: number,
    signal: AbortSignal,
  ): Promise<Feed | 'out of reach' | 'later'> {
    const { spoolDirectory, name, digest } = this.#options
    if (directory === undefined || fetch.directory !== directory) return 'out of reach'
    if (fetch.file === null || fetch.size === null) return 'later'
    const isAlive = async (): Promise<boolean> => (await leases.find(name, digest))?.id === fetch.id
    const body = await followFile(join(spoolDirectory, fetch.file), start, fetch.size, isAlive, signal)
    // A file that is not there has just been let go of, or the directory is a copy of the owner's.
    if (body === undefined) return (await isAlive()) ? 'out of reach' : 'later'
    return { from: 'process', body, start, size: fetch.size }
  }
}
