import type { RepositoryName } from '../oci/name.ts'
import type { Mirror } from './mirror.ts'

/** A mirror with the names by which clients find it besides its prefix. */
export interface NamedMirror {
  readonly mirror: Mirror
  /** What clients say in `?ns=`, in lower case. */
  readonly namespaces: readonly string[]
  /** Hosts at whose root it stands, in lower case. */
  readonly hosts: readonly string[]
}

/** The mirrors that there are now; they come and go while the registry runs. */
export class MirrorSet {
  /** Prefixes by namespace and by host: these maps stay the same, and what is in them changes. */
  readonly namespaces = new Map<string, string>()
  readonly hosts = new Map<string, string>()
  #mirrors = new Map<string, Mirror>()

  /** By prefix. */
  get all(): readonly Mirror[] {
    return [...this.#mirrors.values()]
  }

  get(prefix: string): Mirror | undefined {
    return this.#mirrors.get(prefix)
  }

  /** The mirror that a repository is of. */
  find(name: RepositoryName): Mirror | undefined {
    for (const mirror of this.#mirrors.values()) if (mirror.has(name)) return mirror
    return undefined
  }

  /** Replaces all of them at once; the first that names a namespace or host has it. */
  replace(named: readonly NamedMirror[]): void {
    this.#mirrors = new Map(named.map(({ mirror }) => [mirror.options.prefix, mirror]))
    for (const key of ['namespaces', 'hosts'] as const) {
      this[key].clear()
      for (const { mirror, [key]: names } of named.toReversed()) {
        for (const name of names) this[key].set(name, mirror.options.prefix)
      }
    }
  }
}
