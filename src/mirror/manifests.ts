import { createHash } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { LRUCache } from 'lru-cache'
import { type Digest, digestOf } from '../oci/digest.ts'
import { RegistryError } from '../oci/errors.ts'
import { parseManifest } from '../oci/manifest.ts'
import type { Reference, RepositoryName, Tag } from '../oci/name.ts'
import type { Caller } from '../registry/context.ts'
import type { ManifestInfo } from '../registry/manifests.ts'
import type { MirroredTags } from '../registry/mirrored-tags.ts'
import type { Registry } from '../registry/registry.ts'
import { isOverQuota } from '../registry/usage.ts'
import { type Mirror, textOf } from './mirror.ts'
import { AbsentMemory } from './absent-memory.ts'
import { refusalOf } from './refusals.ts'
import { UpstreamFailure } from './upstream-failure.ts'
import { within } from './within.ts'

/** An upstream that has said nothing for this long has said nothing. */
const ASK_MS = 30_000

/** What a mirror's manifests are kept in, and told of. */
export interface ManifestMirrorOptions {
  /** The registry that holds the copies, for as long as they are used. */
  readonly copies: Registry
  readonly tags: MirroredTags
  /** Told of every answer that is older than it should be. */
  readonly onStale: (mirror: Mirror, failure: UpstreamFailure) => void
}

/** Who writes copies. */
const WRITER: Caller = { mayPush: true, principal: 'mirror', isMirror: true }

/** Manifests that are passed on: bytes in memory at most, and how long until it is tried again to keep them. */
const PASSING_BYTES = 32 * 1024 * 1024
const PASSING_MS = 60_000

/**
 * Manifests of mirrors: distribution-spec, "Pulling manifests". By digest from what is here, for ever; by tag from here
 * while it is fresh or a rule makes it immutable, else as the upstream says now, else, where the upstream says nothing, from
 * here with a warning. Those who ask for the same together share what is asked of the upstream. What a quota has no room
 * for is passed on without being kept.
 */
export class ManifestMirror {
  readonly #options: ManifestMirrorOptions
  readonly #asking = new Map<string, Promise<ManifestInfo | undefined>>()
  /** By repository and digest: a client asks for what it was told of by HEAD. */
  readonly #passing = new LRUCache<string, ManifestInfo>({
    maxSize: PASSING_BYTES,
    sizeCalculation: ({ size }) => Math.max(size, 1),
    ttl: PASSING_MS,
  })
  readonly #absent = new AbsentMemory()

  constructor(options: ManifestMirrorOptions) {
    this.#options = options
  }

  /**
   * @throws RegistryError NAME_UNKNOWN where the mirror does not fetch the repository (any more), whatever is here;
   * MANIFEST_UNKNOWN; what {@link refusalOf} makes of the upstream's failure where nothing is here.
   */
  async stat(mirror: Mirror, name: RepositoryName, reference: Reference, caller: Caller): Promise<ManifestInfo> {
    const repository = mirror.upstreamName(name)
    const { tag } = reference
    const find = async (): Promise<ManifestInfo | undefined> => await this.#find(name, reference, caller)
    if (tag === undefined) {
      const here = (await find()) ?? this.#passing.get(`${name} ${reference.digest}`)
      if (here !== undefined) return counted(mirror, here)
    } else if (await this.#options.tags.isFresh(name, tag, mirror.ttlMs(tag))) {
      const here = await find()
      if (here !== undefined) return counted(mirror, await this.#used(name, tag, here))
    }
    const stale = tag === undefined ? undefined : await find()
    if (mirror.options.offline) {
      if (tag !== undefined && stale !== undefined) return counted(mirror, await this.#used(name, tag, stale))
      throw new RegistryError('MANIFEST_UNKNOWN', {
        message: `the mirror is offline and does not have ${textOf(reference)}`,
      })
    }
    if (tag !== undefined && stale !== undefined && (await this.#options.tags.isImmutable(name, tag))) {
      await this.#options.tags.confirm(name, tag)
      return counted(mirror, stale)
    }
    const outcome = await this.#refresh(mirror, repository, name, reference, stale)
    if (outcome !== undefined && !(outcome instanceof UpstreamFailure)) {
      mirror.stats.add('manifestMisses')
      return outcome
    }
    const failure = outcome
    if (failure === undefined || failure.kind !== 'absent' || mirror.options.keepsDeleted) {
      const here = await find()
      if (here !== undefined && failure === undefined) {
        mirror.stats.add(here.digest === stale?.digest ? 'manifestHits' : 'manifestMisses')
        return here
      }
      if (here !== undefined && failure !== undefined && tag !== undefined) {
        mirror.stats.add('stale')
        this.#options.onStale(mirror, failure)
        return { ...(await this.#used(name, tag, here)), warnings: [`this may be out of date: ${failure.message}`] }
      }
    }
    throw refusalOf(failure ?? new UpstreamFailure('absent', 'what came was gone at once'), 'MANIFEST_UNKNOWN')
  }

  async #used(name: RepositoryName, tag: Tag, manifest: ManifestInfo): Promise<ManifestInfo> {
    await this.#options.tags.use(name, tag)
    return manifest
  }

  async #find(name: RepositoryName, reference: Reference, caller: Caller): Promise<ManifestInfo | undefined> {
    try {
      // As one who may push, so that what is asked for is kept.
      return await this.#options.copies.statManifest(name, reference, { ...caller, mayPush: true })
    } catch (error) {
      if (error instanceof RegistryError && error.code === 'MANIFEST_UNKNOWN') return undefined
      throw error
    }
  }

  /**
   * Asks the upstream, together with whoever asks the same now; answers why nothing came, or what is not kept. Where there is something older
   * to give, waits no longer than the mirror's patience; the asking goes on and what it brings is for the next.
   */
  async #refresh(
    mirror: Mirror,
    repository: string,
    name: RepositoryName,
    reference: Reference,
    stale: ManifestInfo | undefined,
  ): Promise<UpstreamFailure | ManifestInfo | undefined> {
    const key = `${name} ${textOf(reference)}`
    const known = this.#absent.find(key)
    if (known !== undefined) return known
    let asking = this.#asking.get(key)
    if (asking === undefined) {
      asking = this.#ask(mirror, repository, name, reference, stale).finally(() => this.#asking.delete(key))
      this.#asking.set(key, asking)
    }
    const outcome = asking.catch((error: unknown) => {
      if (!(error instanceof UpstreamFailure)) throw error
      if (error.kind === 'absent') this.#absent.note(key, error)
      return error
    })
    if (stale === undefined) return await outcome
    const timer = new AbortController()
    const late = delay(mirror.options.patienceMs, undefined, { signal: timer.signal, ref: false }).then(
      () => new UpstreamFailure('failed', `${mirror.upstream.host} did not answer in ${mirror.options.patienceMs} ms`),
      () => undefined,
    )
    try {
      // Whoever waits no longer leaves the outcome to the next; its failure is told to them.
      outcome.catch(() => undefined)
      return await Promise.race([outcome, late])
    } finally {
      timer.abort()
    }
  }

  /** Undefined where what came is here now. */
  async #ask(
    mirror: Mirror,
    repository: string,
    name: RepositoryName,
    reference: Reference,
    stale: ManifestInfo | undefined,
  ): Promise<ManifestInfo | undefined> {
    const { upstream, health } = mirror
    const { copies, tags } = this.#options
    const asked = async <T>(ask: (signal: AbortSignal) => Promise<T>): Promise<T> =>
      await health.run(() => within(upstream.host, ASK_MS, ask))
    const { tag } = reference
    // A HEAD costs no pull; what it says is taken by its digest, so that a tag that moves meanwhile is no matter.
    const now = tag === undefined ? reference.digest : await asked(signal => upstream.resolve(repository, tag, signal))
    const here = tag === undefined || now === undefined ? undefined : await this.#find(name, { digest: now }, WRITER)
    if (tag !== undefined && here !== undefined && here.digest === stale?.digest) {
      await tags.confirm(name, tag)
      return undefined
    }
    const passing = now === undefined ? undefined : this.#passing.get(`${name} ${now}`)
    if (passing !== undefined) return passing
    const { bytes, mediaType } =
      here === undefined
        ? await asked(signal => upstream.manifest(repository, now ?? textOf(reference), signal))
        : { bytes: await copies.readManifest(here), mediaType: here.mediaType }
    try {
      await copies.pushManifest(
        {
          name,
          reference: now === undefined ? reference : { digest: now },
          tags: now === undefined || tag === undefined ? [] : [tag],
          contentType: mediaType === '' ? undefined : mediaType,
          bytes,
        },
        WRITER,
      )
    } catch (error) {
      if (isOverQuota(error)) return this.#pass(name, now, bytes, mediaType, error)
      if (!(error instanceof RegistryError) || error.status >= 500) throw error
      const what = error.code === 'DENIED' ? 'has what is not taken over' : 'sent what is no manifest'
      throw new UpstreamFailure('failed', `${upstream.host} ${what}: ${error.message}`, { cause: error })
    }
    if (tag !== undefined) await tags.confirm(name, tag)
    return undefined
  }

  /** A manifest that was found sound, and is not kept. */
  #pass(
    name: RepositoryName,
    digest: Digest | undefined,
    payload: Uint8Array,
    mediaType: string,
    { message }: Error,
  ): ManifestInfo {
    const passing = {
      id: 0,
      repositoryId: 0,
      digest: digest ?? digestOf('sha256', createHash('sha256').update(payload).digest('hex')),
      mediaType: parseManifest(payload, mediaType === '' ? undefined : mediaType).mediaType,
      size: payload.byteLength,
      payload,
      warnings: [`this is not kept here: ${message}`],
    }
    this.#passing.set(`${name} ${passing.digest}`, passing)
    return passing
  }
}

function counted(mirror: Mirror, manifest: ManifestInfo): ManifestInfo {
  mirror.stats.add('manifestHits')
  return manifest
}
