import type { Digest } from '../oci/digest.ts'
import { RegistryError } from '../oci/errors.ts'
import { type Reference, type RepositoryName } from '../oci/name.ts'
import { tagMatcher } from '../oci/tag-pattern.ts'
import type { VisibleNames } from '../registry/context.ts'
import { UpstreamHealth } from './health.ts'
import { MirrorStats } from './stats.ts'
import { Upstream, type UpstreamOptions } from './upstream.ts'

/** How long a tag is taken as it is without asking the upstream. The first that names the tag decides. */
export interface TagLife {
  /** A pattern of tags. */
  readonly tags: string
  readonly ttlMs: number
}

/** A prefix of repositories that come from an upstream. */
export interface MirrorOptions {
  /** What the names of its repositories begin with, before a `/`. */
  readonly prefix: RepositoryName
  readonly upstream: UpstreamOptions
  /** What the upstream puts before names of one component: `library` on Docker Hub. */
  readonly defaultNamespace?: string | undefined
  /** Upstream repositories that may be fetched: true where it may. */
  readonly allows: (repository: string) => boolean
  /** The same of the names here, for looking in the index; names that are not of the mirror match. */
  readonly allowedNames: VisibleNames
  readonly tagLives: readonly TagLife[]
  readonly defaultTtlMs: number
  /** Whether only what is here is served and nothing is asked. */
  readonly offline: boolean
  /** Whether a tag that is gone at the upstream is served on. */
  readonly keepsDeleted: boolean
  /** How long an answer may take where there is an older one to give, in milliseconds. */
  readonly patienceMs: number
  /** What is counted of it; one that is changed goes on counting. */
  readonly stats?: MirrorStats
}

/** A mirror at work. */
export class Mirror {
  readonly options: MirrorOptions
  readonly upstream: Upstream
  readonly health = new UpstreamHealth()
  readonly stats: MirrorStats
  readonly #lives: readonly { readonly matches: (tag: string) => boolean; readonly ttlMs: number }[]

  constructor(options: MirrorOptions) {
    this.options = options
    this.stats = options.stats ?? new MirrorStats()
    this.upstream = new Upstream({ ...options.upstream, observer: this.stats })
    this.#lives = options.tagLives.map(({ tags, ttlMs }) => ({ matches: tagMatcher(tags), ttlMs }))
  }

  /** Whether a repository is of this mirror. */
  has(name: RepositoryName): boolean {
    return name.startsWith(`${this.options.prefix}/`)
  }

  /**
   * The upstream's name of a repository of ours.
   * @throws RegistryError NAME_UNKNOWN where the mirror does not fetch it.
   */
  upstreamName(name: RepositoryName): string {
    const repository = this.#nameThere(name)
    if (this.options.allows(repository)) return repository
    throw new RegistryError('NAME_UNKNOWN', {
      message: `${repository} is not among what is mirrored from ${this.upstream.host}`,
      detail: { name },
    })
  }

  /** Whether a repository of ours is among those that may be fetched, and so given. */
  allows(name: RepositoryName): boolean {
    return this.options.allows(this.#nameThere(name))
  }

  #nameThere(name: RepositoryName): string {
    const { prefix, defaultNamespace } = this.options
    const short = name.slice(prefix.length + 1)
    return defaultNamespace === undefined || short.includes('/') ? short : `${defaultNamespace}/${short}`
  }

  /** How long what a tag named stays fresh, in milliseconds. */
  ttlMs(tag: string): number {
    return this.#lives.find(({ matches }) => matches(tag))?.ttlMs ?? this.options.defaultTtlMs
  }

  /** The refusal of whatever would change a mirror: distribution-spec, "Registry Proxying". */
  readOnly(name: RepositoryName): RegistryError {
    return new RegistryError('UNSUPPORTED', {
      message: `${name} mirrors ${this.upstream.host}: push elsewhere, what is here comes from there`,
    })
  }
}

/** What is asked for, as upstreams take it. */
export function textOf(reference: Reference): string {
  return reference.tag ?? (reference.digest satisfies Digest)
}
