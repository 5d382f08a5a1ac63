import { LRUCache } from 'lru-cache'
import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Database } from '../metadata/database.ts'
import { type MirroredUse, noteUses, pruneUses } from '../metadata/mirrored-uses.ts'

/** How exactly it is known when a copy was last asked for. */
const NOTE_EVERY_MS = 60_000
const MOST_KNOWN = 50_000
/** Uses that wait to be written. Beyond them the oldest are forgotten: then something may go a little early. */
const MOST_WAITING = 20_000
const WRITE_BATCH = 1_000
const PRUNE_BATCH = 1_000

type Waiting = Omit<MirroredUse, 'agoMs'> & { readonly at: number }

/** When copies were last asked for. No pull waits for a write: uses are noted in memory and written now and then. */
export class MirroredUses {
  readonly #db: Database
  readonly #noted = new LRUCache<string, true>({ max: MOST_KNOWN, ttl: NOTE_EVERY_MS })
  readonly #waiting = new LRUCache<string, Waiting>({ max: MOST_WAITING })
  #writing: Promise<void> = Promise.resolve()

  constructor(db: Database) {
    this.#db = db
  }

  /** Notes that a manifest of a mirror (by its prefix) was asked for. */
  noteManifest(prefix: string, repository: RepositoryName, digest: Digest): void {
    this.#note({ prefix, repository, digest, isBlob: false })
  }

  /** The same of a blob. */
  noteBlob(prefix: string, repository: RepositoryName, digest: Digest): void {
    this.#note({ prefix, repository, digest, isBlob: true })
  }

  #note(use: Omit<MirroredUse, 'agoMs'>): void {
    const key = `${use.repository} ${use.digest}`
    if (this.#noted.has(key)) return
    this.#noted.set(key, true)
    this.#waiting.set(key, { ...use, at: performance.now() })
  }

  /** Writes what was noted. @throws what the index fails with; then it is written the next time. */
  async write(): Promise<void> {
    // One at a time; a failure is the caller's whose turn it was.
    this.#writing = this.#writing.catch(() => undefined).then(() => this.#writeAll())
    await this.#writing
  }

  async #writeAll(): Promise<void> {
    for (;;) {
      const batch = [...this.#waiting.entries()].slice(0, WRITE_BATCH)
      if (batch.length === 0) return
      const now = performance.now()
      const uses = batch.map(([, { at, ...use }]) => ({ ...use, agoMs: Math.max(0, now - at) }))
      await this.#db.transaction(tx => noteUses(tx, uses))
      for (const [key, waiting] of batch) if (this.#waiting.peek(key) === waiting) this.#waiting.delete(key)
    }
  }

  /** Forgets uses older than `ageMs`. Ends between batches, by an error, when `signal` fires. */
  async prune(ageMs: number, signal: AbortSignal): Promise<void> {
    for (;;) {
      signal.throwIfAborted()
      if ((await this.#db.transaction(tx => pruneUses(tx, ageMs, PRUNE_BATCH))) < PRUNE_BATCH) return
    }
  }
}
