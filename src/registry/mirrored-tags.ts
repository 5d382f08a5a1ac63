import { LRUCache } from 'lru-cache'
import { RegistryError } from '../oci/errors.ts'
import type { RepositoryName, Tag } from '../oci/name.ts'
import * as rows from '../metadata/mirrored-tags.ts'
import type { RegistryContext } from './context.ts'
import { deleteManifest } from './delete-manifest.ts'

const MOST_KNOWN = 50_000
/** How exactly it is known when a tag was last asked for. */
const NOTE_EVERY_MS = 60 * 60_000
const EXPIRE_BATCH = 100

interface Known {
  readonly confirmedAt: number
  readonly notedAt: number
}

/** What is known of the tags of mirrors. This process remembers what it saw itself, so that a fresh tag costs no statement. */
export class MirroredTags {
  readonly #context: RegistryContext
  readonly #known = new LRUCache<string, Known>({ max: MOST_KNOWN })

  constructor(context: RegistryContext) {
    this.#context = context
  }

  /** Whether the upstream said within the last `ttlMs` what the tag names. */
  async isFresh(name: RepositoryName, tag: Tag, ttlMs: number): Promise<boolean> {
    const now = performance.now()
    const known = this.#known.get(keyOf(name, tag))
    if (known !== undefined && now - known.confirmedAt < ttlMs) return true
    const age = await rows.findConfirmationAge(this.#context.db, name, tag)
    if (age === undefined || age >= ttlMs) return false
    this.#known.set(keyOf(name, tag), { confirmedAt: now - age, notedAt: known?.notedAt ?? -Infinity })
    return true
  }

  /** Notes that the upstream said now what the tag names. */
  async confirm(name: RepositoryName, tag: Tag): Promise<void> {
    await this.#context.db.transaction(tx => rows.confirmMirroredTag(tx, name, tag))
    const now = performance.now()
    this.#known.set(keyOf(name, tag), { confirmedAt: now, notedAt: now })
  }

  /** Notes that the tag was asked for, to the hour. */
  async use(name: RepositoryName, tag: Tag): Promise<void> {
    const known = this.#known.get(keyOf(name, tag))
    const now = performance.now()
    if (known !== undefined && now - known.notedAt < NOTE_EVERY_MS) return
    this.#known.set(keyOf(name, tag), { confirmedAt: known?.confirmedAt ?? -Infinity, notedAt: now })
    await this.#context.db.transaction(tx => rows.useMirroredTag(tx, name, tag))
  }

  /** Deletes tags that nobody asked for since `keepMs` ago; what they named stays as long as it is used otherwise. */
  async expire(keepMs: number, signal: AbortSignal): Promise<number> {
    for (let expired = 0; ;) {
      const unused = await rows.findUnusedMirroredTags(this.#context.db, keepMs, EXPIRE_BATCH)
      for (const { repository, tag } of unused) {
        signal.throwIfAborted()
        const isUnused = await this.#context.db.transaction(tx => rows.forgetMirroredTag(tx, repository, tag, keepMs))
        if (!isUnused) continue
        await this.#delete(repository, tag)
        expired += 1
      }
      if (unused.length < EXPIRE_BATCH) return expired
    }
  }

  async #delete(repository: RepositoryName, tag: Tag): Promise<void> {
    try {
      await deleteManifest(this.#context, repository, { tag }, { mayPush: true, principal: 'mirror' })
    } catch (error) {
      // A tag rule keeps what it keeps here as well.
      if (!(error instanceof RegistryError && ['MANIFEST_UNKNOWN', 'DENIED'].includes(error.code))) throw error
    }
  }
}

function keyOf(name: RepositoryName, tag: Tag): string {
  return `${name}:${tag}`
}
