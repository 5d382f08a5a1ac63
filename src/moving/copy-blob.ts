import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import type { Database } from '../metadata/database.ts'
import { type MoveResult, type StoredBlob, dropDraft, holdDraft, moveBlob } from '../metadata/storage-copy.ts'
import { algorithmOf, digestOf } from '../oci/digest.ts'
import {
  BlobMissing,
  type BlobStore,
  BodyAborted,
  ContentTooLarge,
  type StorageKey,
  StoreUnavailable,
  type WriteState,
} from '../storage/blob-store.ts'
import type { Pace } from './pace.ts'

/** What a blob is copied with. Durations in milliseconds. */
export interface CopyContext {
  readonly db: Database
  readonly target: BlobStore
  readonly pace: Pace
  /** How long the old bytes stay, for those who read them. */
  readonly graceMs: number
  /** How long a copy on which nothing moves is kept before the purge may take it. */
  readonly draftMs: number
}

/** The blob cannot be copied, now or later: its bytes are absent, are others than its digest says, or are too many. */
export class BlobUncopyable extends Error {
  override readonly name = 'BlobUncopyable'
}

/**
 * Copies one blob to a new key of the target, verifies it by its digest on the way, and points its row there if that is
 * still where it was. What a failure or a death leaves in the target is in the trash already. False: the row changed
 * meanwhile, because the blob was collected or another moved it.
 * @throws BlobUncopyable; StoreUnavailable; the signal's reason when it fires.
 */
export async function copyBlob(
  context: CopyContext,
  source: BlobStore,
  blob: StoredBlob,
  signal: AbortSignal,
): Promise<boolean> {
  const { db, target } = context
  const draft = new Draft(context, target.begin({ digest: blob.digest, length: blob.size }))
  await draft.hold()
  let result: MoveResult | undefined
  try {
    const key = await write(context, source, blob, draft, signal)
    result = await db.transaction(async tx => {
      const moved = await moveBlob(tx, blob, { store: target.name, key }, context.graceMs)
      if (moved !== 'moved') throw new Unmoved(moved)
      return moved
    })
    return true
  } catch (error) {
    if (!(error instanceof Unmoved)) throw error
    if (error.result === 'late') throw new StoreUnavailable('Copying took so long that the copy was purged')
    return false
  } finally {
    if (result === undefined) await draft.drop()
  }
}

/** Takes back what a transaction of {@link moveBlob} has done. */
class Unmoved extends Error {
  override readonly name = 'Unmoved'
  readonly result: Exclude<MoveResult, 'moved'>

  constructor(result: Exclude<MoveResult, 'moved'>) {
    super(result)
    this.result = result
  }
}

/** Content that is being copied, and its row in the trash. */
class Draft {
  readonly #context: CopyContext
  #state: WriteState
  #heldAs: StorageKey | undefined

  constructor(context: CopyContext, state: WriteState) {
    this.#context = context
    this.#state = state
  }

  get state(): WriteState {
    return this.#state
  }

  /** Records the state before the store is asked for anything that it names. */
  async hold(state = this.#state): Promise<void> {
    const { db, target, draftMs } = this.#context
    const row = { store: target.name, key: state.key, state, was: this.#heldAs }
    if (!(await db.transaction(tx => holdDraft(tx, row, draftMs)))) {
      throw new StoreUnavailable('Copying took so long that the copy was purged')
    }
    this.#state = state
    this.#heldAs = state.key
  }

  /** Leaves the copy to the purge at once. Where this fails the row is due later, so what failed before is what is told. */
  async drop(): Promise<void> {
    const { db, target } = this.#context
    await db.transaction(tx => dropDraft(tx, target.name, this.#state.key)).catch(() => undefined)
  }
}

/** Writes the bytes to the target; answers the finished key. */
async function write(
  { target, pace }: CopyContext,
  source: BlobStore,
  blob: StoredBlob,
  draft: Draft,
  signal: AbortSignal,
): Promise<StorageKey> {
  let unreadable: unknown
  async function* paced(): AsyncGenerator<Uint8Array> {
    const chunks = source.read(blob.storage_key as StorageKey, signal)
    try {
      for await (const chunk of chunks) {
        await pace.pass(chunk.byteLength, signal)
        yield chunk
      }
    } catch (error) {
      unreadable = error
      throw error
    }
  }
  const algorithm = algorithmOf(blob.digest)
  const hash = createHash(algorithm)
  const body = Readable.from(paced(), { objectMode: false })
  try {
    const written = await target.append(draft.state, body, {
      observe: bytes => hash.update(bytes),
      onDurable: state => draft.hold(state),
      signal,
      length: blob.size,
      last: true,
      attempt: 1,
    })
    const actual = digestOf(algorithm, hash.digest('hex'))
    if (written.offset !== blob.size || actual !== blob.digest) {
      throw new BlobUncopyable(`its bytes in ${source.name} have the digest ${actual}`)
    }
    return await target.finish(written)
  } catch (error) {
    signal.throwIfAborted()
    throw uncopyable(error, unreadable, source)
  } finally {
    body.destroy()
  }
}

/** What a failure says about the blob: a fault of the source or of the blob itself must not hold up the others. */
function uncopyable(error: unknown, unreadable: unknown, source: BlobStore): unknown {
  if (unreadable instanceof BlobMissing) return new BlobUncopyable(`its bytes are absent in ${source.name}`)
  if (error instanceof BodyAborted) {
    const cause = unreadable instanceof Error ? unreadable : error
    return new BlobUncopyable(`it cannot be read from ${source.name}: ${cause.message}`, { cause })
  }
  if (error instanceof ContentTooLarge) return new BlobUncopyable(error.message, { cause: error })
  return error
}
