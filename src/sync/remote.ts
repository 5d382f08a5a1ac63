import { createHash } from 'node:crypto'
import { UpstreamFailure } from '../mirror/upstream-failure.ts'
import type { Upstream } from '../mirror/upstream.ts'
import { within } from '../mirror/within.ts'
import { type Digest, algorithmOf, digestOf, tryParseDigest } from '../oci/digest.ts'
import { matchesPattern } from '../oci/repository-pattern.ts'
import type { Patience } from './patience.ts'
import type { BlobPart, Content, Source } from './sides.ts'

/** A registry that has said nothing for this long has said nothing. */
const ASK_MS = 60_000
/** What a list of a registry may hold at most: one that goes on for ever is broken. */
const MOST_ENTRIES = 1_000_000

/** The other registry, asked with patience, for as long as a run lasts. */
export class Remote {
  readonly upstream: Upstream
  readonly patience: Patience
  readonly signal: AbortSignal

  constructor(upstream: Upstream, patience: Patience, signal: AbortSignal) {
    this.upstream = upstream
    this.patience = patience
    this.signal = signal
  }

  /** @throws UpstreamFailure */
  async ask<T>(ask: (upstream: Upstream, signal: AbortSignal) => Promise<T>): Promise<T> {
    const { upstream, signal } = this
    return await this.patience.run(() =>
      within(upstream.host, ASK_MS, late => ask(upstream, AbortSignal.any([late, signal]))),
    )
  }

  /** The same, undefined where it does not have it. */
  async find<T>(ask: (upstream: Upstream, signal: AbortSignal) => Promise<T>): Promise<T | undefined> {
    try {
      return await this.ask(ask)
    } catch (error) {
      if (error instanceof UpstreamFailure && error.kind === 'absent') return undefined
      throw error
    }
  }

  /** What a tag names now, by a HEAD where that says so; undefined where there is no such tag. */
  async resolve(repository: string, tag: string): Promise<Digest | undefined> {
    return await this.find(async (upstream, signal) => {
      const digest = await upstream.resolve(repository, tag, signal)
      if (digest !== undefined) return digest
      const { bytes } = await upstream.manifest(repository, tag, signal)
      return digestOf('sha256', createHash('sha256').update(bytes).digest('hex'))
    })
  }

  /** A manifest by its digest, checked. @throws UpstreamFailure `refused` where something else comes. */
  async manifest(repository: string, digest: Digest): Promise<Content | undefined> {
    const content = await this.find((upstream, signal) => upstream.manifest(repository, digest, signal))
    if (content === undefined) return undefined
    const algorithm = algorithmOf(digest)
    const actual = digestOf(algorithm, createHash(algorithm).update(content.bytes).digest('hex'))
    if (actual === digest) return content
    throw new UpstreamFailure('refused', `${this.upstream.host} sent ${actual} as ${digest}`)
  }

  /** All entries of a list, page by page along its Links (RFC 8288). */
  async list(repository: string | undefined, path: string, key: string): Promise<readonly string[]> {
    const entries = new Set<string>()
    let query: URLSearchParams | undefined = new URLSearchParams({ n: '1000' })
    while (query !== undefined) {
      const asked: URLSearchParams = query
      const { json, next } = await this.ask((upstream, signal) => upstream.document(repository, path, asked, signal))
      const before = entries.size
      const page: unknown = (json as Readonly<Record<string, unknown>> | null)?.[key]
      for (const entry of Array.isArray(page) ? (page as readonly unknown[]) : []) {
        if (typeof entry === 'string') entries.add(entry)
      }
      // A page that brings nothing new would be asked for for ever.
      query = entries.size > before && entries.size < MOST_ENTRIES ? next : undefined
    }
    return [...entries]
  }
}

/** The other registry as where images come from: distribution-spec, "Pull". */
export class RemoteSource implements Source {
  readonly #remote: Remote
  #catalog: Promise<readonly string[]> | undefined

  constructor(remote: Remote) {
    this.#remote = remote
  }

  async repositories(pattern: string): Promise<readonly string[]> {
    this.#catalog ??= this.#listCatalog()
    return (await this.#catalog).filter(name => matchesPattern(pattern, name))
  }

  async #listCatalog(): Promise<readonly string[]> {
    try {
      return await this.#remote.list(undefined, '_catalog', 'repositories')
    } catch (error) {
      if (!(error instanceof UpstreamFailure) || error.kind === 'failed' || error.kind === 'limited') throw error
      throw new UpstreamFailure(
        'refused',
        `${error.message} when it was asked which repositories it has, as Docker Hub and others do: name repositories in full, without *`,
        { cause: error },
      )
    }
  }

  async tags(repository: string): Promise<readonly string[]> {
    return await this.#remote.list(repository, 'tags/list', 'tags')
  }

  async resolve(repository: string, tag: string): Promise<Digest | undefined> {
    return await this.#remote.resolve(repository, tag)
  }

  async manifest(repository: string, digest: Digest): Promise<Content | undefined> {
    return await this.#remote.manifest(repository, digest)
  }

  /** By the referrers API, or by the index under the tag of its fallback: distribution-spec, "Referrers Tag Schema". */
  async referrers(repository: string, digest: Digest): Promise<readonly Digest[]> {
    const found: Digest[] = []
    let query: URLSearchParams | undefined = new URLSearchParams()
    while (query !== undefined) {
      const asked: URLSearchParams = query
      const page = await this.#remote.find((upstream, signal) =>
        upstream.document(repository, `referrers/${digest}`, asked, signal),
      )
      if (page === undefined) return await this.#fallback(repository, digest)
      const digests = digestsIn(page.json).filter(each => !found.includes(each))
      found.push(...digests)
      query = digests.length === 0 ? undefined : page.next
    }
    return found
  }

  async #fallback(repository: string, digest: Digest): Promise<readonly Digest[]> {
    const index = await this.#remote.find((upstream, signal) =>
      upstream.manifest(repository, fallbackTag(digest), signal),
    )
    if (index === undefined) return []
    try {
      return digestsIn(JSON.parse(index.bytes.toString('utf8')))
    } catch {
      return []
    }
  }

  async blob(repository: string, digest: Digest, start: number): Promise<BlobPart> {
    return await this.#remote.ask((upstream, signal) => upstream.blob(repository, digest, start, signal))
  }
}

/** distribution-spec, "Referrers Tag Schema". */
export function fallbackTag(digest: Digest): string {
  const [algorithm = '', hex = ''] = digest.split(':')
  return `${algorithm.slice(0, 32)}-${hex.slice(0, 64)}`
}

function digestsIn(index: unknown): readonly Digest[] {
  const { manifests } = (index ?? {}) as { readonly manifests?: unknown }
  if (!Array.isArray(manifests)) return []
  return (manifests as readonly unknown[]).flatMap(entry => {
    const { digest } = (entry ?? {}) as { readonly digest?: unknown }
    return typeof digest === 'string' ? (tryParseDigest(digest) ?? []) : []
  })
}
