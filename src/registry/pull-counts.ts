import type { Reference } from '../oci/name.ts'
import type { Database } from '../metadata/database.ts'
import { type PullCount, addPulls } from '../metadata/pulls.ts'

/** How {@link PullCounts} works. */
export interface PullCountOptions {
  /** Counts in memory are written this often; a process that dies loses no more. In milliseconds. */
  readonly flushMs: number
  /** Principals, by name, whose pulls say nothing of use: scanners. */
  readonly ignored: readonly string[]
  /** Told of counts that could not be written, or not be kept. */
  readonly onError: (error: unknown) => void
  /** Different tags and manifests that are remembered between two writes. */
  readonly limit?: number
}

const LIMIT = 20_000

interface Counted extends Omit<PullCount, 'agoMs'> {
  /** By `performance.now()`. */
  readonly at: number
}

/**
 * Counts pulls in memory and adds them to the index now and then: no pull waits for a write, and several processes add
 * up. A manifest is pulled by GET. A tag is pulled by GET or HEAD: Docker, containerd and Kubernetes resolve a tag by
 * HEAD and get the manifest by its digest, if they do not have it yet, so the HEAD is all that a tag sees of their pulls.
 * Some who push ask by HEAD as well: that counts a tag as used that is about to be pushed, which does no harm.
 */
export class PullCounts {
  readonly #db: Database
  readonly #options: PullCountOptions
  readonly #ignored: ReadonlySet<string>
  readonly #limit: number
  #counts = new Map<string, Counted>()
  #dropped = 0
  /** Whether the next write was brought forward, because there is not much room left. */
  #isUrgent = false
  #timer: NodeJS.Timeout | undefined
  #writing: Promise<void> = Promise.resolve()

  constructor(db: Database, options: PullCountOptions) {
    this.#db = db
    this.#options = options
    this.#ignored = new Set(options.ignored)
    this.#limit = options.limit ?? LIMIT
  }

  /** Counts one answer about a manifest. */
  count(
    manifest: { readonly id: number; readonly repositoryId: number },
    reference: Reference,
    method: string,
    principal: string | undefined,
  ): void {
    if (method === 'HEAD' && reference.tag === undefined) return
    if (principal !== undefined && this.#ignored.has(principal)) return
    const manifestId = method === 'HEAD' ? undefined : manifest.id
    const { repositoryId } = manifest
    this.#add({ repositoryId, manifestId, tag: reference.tag, pulls: 1, at: performance.now() })
    const flushMs = this.#counts.size < this.#limit / 2 ? this.#options.flushMs : 0
    if (flushMs === 0 && !this.#isUrgent) {
      this.#isUrgent = true
      clearTimeout(this.#timer)
      this.#timer = undefined
    }
    this.#timer ??= setTimeout(() => void this.flush(), flushMs).unref()
  }

  #add(counted: Counted): void {
    const key = `${counted.repositoryId} ${counted.manifestId ?? ''} ${counted.tag ?? ''}`
    const known = this.#counts.get(key)
    if (known === undefined && this.#counts.size >= this.#limit) {
      this.#dropped += counted.pulls
      return
    }
    const pulls = counted.pulls + (known?.pulls ?? 0)
    this.#counts.set(key, { ...counted, pulls, at: Math.max(counted.at, known?.at ?? counted.at) })
  }

  /** Writes what was counted. What cannot be written is reported, and kept for the next time as far as there is room. */
  async flush(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#isUrgent = false
    this.#writing = this.#writing.then(() => this.#write())
    await this.#writing
  }

  async #write(): Promise<void> {
    const counts = [...this.#counts.values()]
    if (counts.length === 0) return
    this.#counts = new Map()
    try {
      const rows = (now: number) => counts.map(({ at, ...count }) => ({ ...count, agoMs: Math.max(0, now - at) }))
      await this.#db.transaction(tx => addPulls(tx, rows(performance.now())))
    } catch (error) {
      for (const counted of counts) this.#add(counted)
      this.#timer ??= setTimeout(() => void this.flush(), this.#options.flushMs).unref()
      this.#options.onError(error)
    }
    if (this.#dropped === 0) return
    this.#options.onError(new Error(`${this.#dropped} pulls were not counted: too many different ones at a time`))
    this.#dropped = 0
  }
}
