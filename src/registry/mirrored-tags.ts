import { LRUCache } from 'lru-cache'
import { RegistryError } from '../oci/errors.ts'
import type { RepositoryName, Tag } from '../oci/name.ts'
import * as rows from '../metadata/mirrored-tags.ts'
import { holdExistingRepository } from '../metadata/repositories.ts'
import type { RegistryContext } from './context.ts'
import { isImmutable, openTagGuard } from './tag-guard.ts'
import { lockTags, removeLockedTag } from './tags.ts'

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

  /** Whether a tag rule says that the tag is never moved: then what the upstream says of it is no matter. */
  async isImmutable(name: RepositoryName, tag: Tag): Promise<boolean> {
    return await isImmutable(this.#context.db, name, tag)
  }

  /** Notes that the upstream said now what the tag names, or need not be asked. */
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

  /**
   * Deletes tags that nobody asked for since `keepMs` ago; what they named stays as long as it is used otherwise. Those of
   * repositories that are no mirror's (any more) are their own, and only forgotten.
   */
  async expire(keepMs: number, isMirrored: (name: RepositoryName) => boolean, signal: AbortSignal): Promise<number> {
    for (let expired = 0; ;) {
      const unused = await rows.findUnusedMirroredTags(this.#context.db, keepMs, EXPIRE_BATCH)
      for (const { repository, tag } of unused) {
        signal.throwIfAborted()
        if (!isMirrored(repository)) {
          await this.#context.db.transaction(tx => rows.forgetMirroredTag(tx, repository, tag, keepMs))
        } else if (await this.#expireOne(repository, tag, keepMs)) expired += 1
      }
      if (unused.length < EXPIRE_BATCH) return expired
    }
  }

  /** False where somebody asked for the tag since, or a tag rule keeps it: then it is looked at again as if just used. */
  async #expireOne(name: RepositoryName, tag: Tag, keepMs: number): Promise<boolean> {
    const { db } = this.#context
    try {
      return await db.transaction(async tx => {
        const repository = await holdExistingRepository(tx, name)
        if (repository === undefined) return false
        const guard = await openTagGuard(tx, name, { isRetention: true, isMirror: true })
        await lockTags(tx, repository.id, [tag])
        if (!(await rows.forgetMirroredTag(tx, name, tag, keepMs))) return false
        const target = { repositoryId: repository.id, repository: name, name: tag, principal: 'mirror', guard }
        await removeLockedTag(this.#context, tx, target)
        return true
      })
    } catch (error) {
      if (!(error instanceof RegistryError) || error.code !== 'DENIED') throw error
      await db.transaction(tx => rows.useMirroredTag(tx, name, tag))
      return false
    }
  }
}

function keyOf(name: RepositoryName, tag: Tag): string {
  return `${name}:${tag}`
}
