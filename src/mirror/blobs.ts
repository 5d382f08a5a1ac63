import { randomUUID } from 'node:crypto'
import type { Readable, Writable } from 'node:stream'
import type { Digest } from '../oci/digest.ts'
import { RegistryError } from '../oci/errors.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { BlobInfo } from '../registry/blobs.ts'
import type { Caller, VisibleNames } from '../registry/context.ts'
import type { Registry } from '../registry/registry.ts'
import { isOverQuota } from '../registry/usage.ts'
import { AbsentMemory } from './absent-memory.ts'
import { BlobFetch, type Pace } from './blob-fetch.ts'
import { BlobSource, type Sharing } from './blob-source.ts'
import type { Mirror } from './mirror.ts'
import { refusalOf } from './refusals.ts'
import { SharedFetches } from './shared-fetches.ts'
import { Slots } from './slots.ts'
import { UpstreamFailure } from './upstream-failure.ts'
import { within } from './within.ts'

/** How blobs of mirrors are fetched. */
export interface BlobMirrorOptions {
  /** The registry that holds the copies, for as long as they are used. */
  readonly copies: Registry
  /** Directory for bytes on their way. */
  readonly spoolDirectory: string
  readonly maxBytes: number
  readonly goOnShare: number
  readonly patienceMs: number
  readonly retries: number
  readonly pace: Pace
  /** Blobs that are fetched from one upstream at a time. */
  readonly maxFetches: number
  /** How processes share what they fetch; absent where this one is alone. */
  readonly sharing?: Sharing
  /** Told why a blob that was asked for did not become a copy. */
  readonly onFailure: (mirror: Mirror, digest: Digest, error: unknown) => void
}

/** A blob under way: what the routes send is found again by this in place of a storage key. */
type FlightKey = BlobInfo['key']
/** Where a blob under way lies. */
const NO_STORE = ''

interface Flight {
  readonly fetch: BlobFetch
  readonly name: RepositoryName
  readonly digest: Digest
}

/** Bytes `start` to `end`, both inclusive. */
interface Range {
  readonly start: number
  readonly end: number
}

const FORGET_MS = 60_000
/** An upstream that has not said for so long whether it has a blob says nothing; so long others wait for their turn. */
const ASK_MS = 30_000
/** In place of a storage key, of what nobody has asked to send. */
const NOWHERE = 'nowhere' as FlightKey
const WRITER: Caller = { mayPush: true, principal: 'mirror' }

/**
 * Blobs of mirrors: distribution-spec, "Pulling blobs". From here where they are here; else from the upstream, once for
 * all who ask while it is under way, of this process or of those it shares fetches with, and stored at the same time.
 */
export class BlobMirror {
  readonly #options: BlobMirrorOptions
  readonly #beginning = new Map<string, Promise<BlobFetch | undefined>>()
  readonly #flights = new Map<FlightKey, Flight>()
  readonly #keys = new Map<string, FlightKey>()
  readonly #absent = new AbsentMemory()
  readonly #slots = new WeakMap<Mirror, Slots>()
  readonly #closing = new AbortController()
  /** What this process fetches for all of them. */
  readonly shared = new SharedFetches()

  constructor(options: BlobMirrorOptions) {
    this.#options = options
  }

  /**
   * The blob, here or under way. Whoever `looks` only wants to know whether and how large it is, which costs the upstream
   * a HEAD and no transfer: what this answers then need not be sendable.
   * @throws RegistryError BLOB_UNKNOWN; what {@link refusalOf} makes of the upstream's failure where it is not here.
   */
  async stat(
    mirror: Mirror,
    name: RepositoryName,
    digest: Digest,
    caller: Caller,
    { looks = false }: { readonly looks?: boolean } = {},
  ): Promise<BlobInfo> {
    const here = await this.#find(name, digest, caller)
    if (here !== undefined) return here
    const repository = mirror.upstreamName(name)
    if (mirror.options.offline) {
      throw new RegistryError('BLOB_UNKNOWN', { message: `the mirror is offline and does not have ${digest}` })
    }
    const id = `${name} ${digest}`
    const absent = this.#absent.find(id)
    if (absent !== undefined) throw refusalOf(absent, 'BLOB_UNKNOWN')
    try {
      const size = looks ? await this.#look(id, mirror, repository, digest) : undefined
      if (size !== undefined) return { size, store: NO_STORE, key: NOWHERE }
      const fetch = await this.#shared(id, () => this.#begin(id, mirror, repository, name, digest))
      const key = this.#keys.get(id)
      if (fetch !== undefined && key !== undefined) return { size: fetch.size, store: NO_STORE, key }
    } catch (error) {
      if (error instanceof UpstreamFailure && error.kind === 'absent') this.#absent.note(id, error)
      throw refusalOf(error, 'BLOB_UNKNOWN')
    }
    return await this.#stored(name, digest)
  }

  /** Whether this is what {@link stat} answered for a blob under way. */
  isFlight({ key }: BlobInfo): boolean {
    return this.#flights.has(key)
  }

  /** Sends a blob that was under way when {@link stat} answered, or one range of it. */
  async sendBlob({ key }: BlobInfo, range: Range | undefined, to: Writable, signal: AbortSignal): Promise<void> {
    const flight = this.#flights.get(key)
    if (flight === undefined) throw new RegistryError('BLOB_UNKNOWN')
    const { fetch, name, digest } = flight
    if (fetch.isOver) {
      await this.#options.copies.sendBlob(await this.#stored(name, digest), range, to, signal)
      return
    }
    try {
      await fetch.send(range?.start ?? 0, range?.end ?? fetch.size - 1, to, signal)
    } catch (error) {
      throw refusalOf(error, 'BLOB_UNKNOWN')
    }
  }

  /** Ends what is under way. */
  async close(): Promise<void> {
    this.#closing.abort(new Error('the registry is stopping'))
    await Promise.allSettled(this.#beginning.values())
    await Promise.all([...this.#flights.values()].map(({ fetch }) => fetch.ended))
  }

  /** Bytes of a blob that is not here, as the upstream says without sending it; undefined where it does not say. */
  async #look(id: string, mirror: Mirror, repository: string, digest: Digest): Promise<number | undefined> {
    const flight = this.#flights.get(this.#keys.get(id) ?? NOWHERE)
    if (flight !== undefined) return flight.fetch.size
    const { upstream, health } = mirror
    return await health.run(() =>
      within(upstream.host, ASK_MS, signal => upstream.blobSize(repository, digest, signal)),
    )
  }

  /** Undefined: another repository of the mirror has the bytes, and the upstream says that this one has them too. */
  async #begin(
    id: string,
    mirror: Mirror,
    repository: string,
    name: RepositoryName,
    digest: Digest,
  ): Promise<BlobFetch | undefined> {
    const { copies, spoolDirectory, sharing, onFailure } = this.#options
    const { prefix } = mirror.options
    // From this mirror alone: an upstream's word must not give away what lies elsewhere.
    const visible = [[`^${prefix.replaceAll('.', String.raw`\.`)}/`]]
    const source = new BlobSource({
      mirror,
      repository,
      name,
      digest,
      copies,
      findStored: () => this.#find(name, digest, WRITER),
      slots: this.#slotsOf(mirror),
      turnMs: ASK_MS,
      sharing,
      spoolDirectory,
      onHeld: held => {
        const begun = this.#beginning.get(id)
        if (begun !== undefined) this.shared.add(held, begun)
      },
    })
    const fetch = await BlobFetch.begin({
      ...this.#options,
      source,
      host: mirror.upstream.host,
      digest,
      isShared: sharing?.directory !== undefined,
      closing: this.#closing.signal,
      isNeeded: async () => !(await this.#mounted(name, digest, visible)),
      store: async (body, length, signal) => await this.#store(name, digest, body, length, signal),
      onFailure: error => onFailure(mirror, digest, error),
    })
    if (fetch === undefined) return undefined
    const key = `flight ${randomUUID()}` as FlightKey
    this.#flights.set(key, { fetch, name, digest })
    this.#keys.set(id, key)
    void fetch.ended.then(() => {
      if (this.#keys.get(id) === key) this.#keys.delete(id)
      // Whoever was told of it a moment ago may only now begin to send it.
      setTimeout(() => this.#flights.delete(key), FORGET_MS).unref()
    })
    return fetch
  }

  /** False also where a quota has no room for it: then it is fetched and passed on. */
  async #mounted(name: RepositoryName, digest: Digest, visible: VisibleNames): Promise<boolean> {
    try {
      return await this.#options.copies.mountBlob({ name, digest, from: undefined, visible }, WRITER)
    } catch (error) {
      if (isOverQuota(error)) return false
      throw error
    }
  }

  async #store(
    name: RepositoryName,
    digest: Digest,
    stream: Readable,
    length: number,
    signal: AbortSignal,
  ): Promise<void> {
    const { copies } = this.#options
    const id = await copies.startUpload(name, WRITER, digest.startsWith('sha512:') ? 'sha512' : 'sha256')
    try {
      await copies.finishUpload({ name, id }, digest, { stream, start: undefined, length, signal })
    } catch (error) {
      // Where it only takes its time, it goes on and commits.
      if (error instanceof RegistryError && error.code === 'UNAVAILABLE') throw error
      // What cannot be finished is of no use to anybody; the session would end by itself too, only later.
      await copies.cancelUpload({ name, id }).catch(() => undefined)
      throw error
    }
  }

  /** The fetch under way, or a new one; one that has failed is nobody's any more. */
  async #shared(id: string, begin: () => Promise<BlobFetch | undefined>): Promise<BlobFetch | undefined> {
    const known = this.#beginning.get(id)
    if (known !== undefined) {
      const fetch = await known
      if (fetch?.isBroken !== true) return fetch
      if (this.#beginning.get(id) === known) this.#beginning.delete(id)
      return await this.#shared(id, begin)
    }
    const beginning = begin()
    const forget = (): void => {
      if (this.#beginning.get(id) === beginning) this.#beginning.delete(id)
    }
    this.#beginning.set(id, beginning)
    beginning.then(fetch => (fetch === undefined ? forget() : fetch.ended.then(forget)), forget)
    return await beginning
  }

  #slotsOf(mirror: Mirror): Slots {
    const known = this.#slots.get(mirror)
    if (known !== undefined) return known
    const slots = new Slots(this.#options.maxFetches)
    this.#slots.set(mirror, slots)
    return slots
  }

  async #stored(name: RepositoryName, digest: Digest): Promise<BlobInfo> {
    const stored = await this.#find(name, digest, WRITER)
    if (stored !== undefined) return stored
    throw new RegistryError('UNAVAILABLE', { message: 'the blob did not come whole', headers: { 'Retry-After': '1' } })
  }

  async #find(name: RepositoryName, digest: Digest, caller: Caller): Promise<BlobInfo | undefined> {
    try {
      // As one who may push, so that what is asked for is kept.
      return await this.#options.copies.statBlob(name, digest, { ...caller, mayPush: true })
    } catch (error) {
      if (error instanceof RegistryError && error.code === 'BLOB_UNKNOWN') return undefined
      throw error
    }
  }
}
