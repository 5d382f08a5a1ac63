import { createHash, randomUUID } from 'node:crypto'
import type { Readable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { type Digest, type DigestAlgorithm, algorithmOf, digestOf } from '../oci/digest.ts'
import { RegistryError } from '../oci/errors.ts'
import type { RepositoryName } from '../oci/name.ts'
import { hasLink, holdBlob, linkBlob, repairBlob } from '../metadata/blobs.ts'
import { holdRepository, rememberSha512 } from '../metadata/repositories.ts'
import { trashBytes } from '../metadata/trash.ts'
import * as rows from '../metadata/uploads.ts'
import type { BlobStore, StorageKey, WriteState } from '../storage/blob-store.ts'
import { type BlobLookUp, statBlob } from './blobs.ts'
import { type Caller, type RegistryContext, checkBinding } from './context.ts'
import { RunningHash, RunningHashes } from './running-hash.ts'
import { type UploadLease, UploadLeases } from './upload-lease.ts'
import { addUsage, checkRoom } from './usage.ts'
import {
  AnnouncedLength,
  RangeExceeded,
  type UploadTarget,
  checkStart,
  pastRange,
  refusalOf,
  unknownUpload,
  wrongDigest,
} from './upload-refusals.ts'

/** Clients give up 30 s after their last byte, so a longer close answers 503 and goes on. */
const CLOSE_LIMIT_MS = 20_000

/** Bytes a client sends for a session. */
export interface UploadBody {
  readonly stream: Readable
  /** First byte's position by the client's account (`Content-Range`), or undefined to append. */
  readonly start: number | undefined
  /** Bytes the client announces (`Content-Length`), or undefined when it does not. */
  readonly length?: number | undefined
  /** Bytes that may come at most, where the client announced them without their length being that of the body. */
  readonly most?: number | undefined
  /** Fires when the client is gone. */
  readonly signal: AbortSignal
}

/** The use cases of upload sessions: distribution-spec, "Pushing blobs". Holds nothing another process needs. */
export class Uploads {
  readonly #context: RegistryContext
  readonly #blobs: BlobLookUp
  readonly #hashes = new RunningHashes()
  readonly #leases: UploadLeases

  constructor(context: RegistryContext, blobs: BlobLookUp) {
    this.#context = context
    this.#blobs = blobs
    this.#leases = new UploadLeases(context.db)
  }

  /**
   * Opens a session; answers its id. `algorithm` is what the client says it will close with; `whole`: the request carries
   * all of the content and says its digest, so that quotas are asked once that is looked at.
   * @throws RegistryError DENIED where a quota has no room at all.
   */
  async start(name: RepositoryName, caller: Caller, algorithm?: DigestAlgorithm, whole = false): Promise<string> {
    const { db, stores, lifetimes } = this.#context
    const store = stores.first
    const id = randomUUID()
    await db.transaction(async tx => {
      const repository = await holdRepository(tx, name)
      checkBinding(caller, repository.id)
      if (algorithm === 'sha512') await rememberSha512(tx, repository.id)
      if (!whole) await checkRoom(tx, repository, 1)
      await rows.insertUpload(tx, {
        id,
        repositoryId: repository.id,
        store: store.name,
        state: store.begin({}),
        expiryMs: lifetimes.uploadExpiryMs,
        principal: caller.principal,
      })
    })
    return id
  }

  /** Bytes received durably. @throws RegistryError BLOB_UPLOAD_UNKNOWN. */
  async status(target: UploadTarget): Promise<number> {
    return (await this.#find(target)).offset
  }

  /**
   * Appends a chunk; answers the new durable offset.
   * @throws RegistryError BLOB_UPLOAD_UNKNOWN; RANGE_INVALID with the present `Range` when the chunk does not start there;
   * DENIED where a quota has no room for it.
   */
  async append(target: UploadTarget, body: UploadBody): Promise<number> {
    const found = await this.#find(target)
    return await this.#asWriter(target, async lease => {
      checkStart(lease.row.offset, body.start)
      return (await this.#write(target, lease, body, { found })).offset
    })
  }

  /**
   * Closes a session as the blob `digest`, with a last chunk if there is one. Repeating it is success. `whole`: nobody was
   * told of the session, so that it ends with a failure.
   * @throws RegistryError BLOB_UPLOAD_UNKNOWN, RANGE_INVALID, DIGEST_INVALID; DENIED where a quota has no room; UNAVAILABLE while the content is being read.
   */
  async finish(target: UploadTarget, digest: Digest, body: UploadBody | undefined, whole = false): Promise<void> {
    try {
      const found = await this.#find(target)
      await this.#finishInTime(target, digest, body, { found, whole })
    } catch (error) {
      // A repeated close, or another request finished it while this one waited for the lease.
      const gone = error instanceof RegistryError && error.code === 'BLOB_UPLOAD_UNKNOWN'
      if (!gone || !(await this.#isPresent(target.name, digest))) throw error
    }
  }

  async #finishInTime(
    target: UploadTarget,
    digest: Digest,
    body: UploadBody | undefined,
    { found, whole }: { readonly found: rows.FoundUpload; readonly whole: boolean },
  ): Promise<void> {
    const received = Promise.withResolvers<void>()
    const answered = new AbortController()
    // What a client waits for after its last byte is one limit, whatever it waits for.
    if (body === undefined) received.resolve()
    const closed = this.#asWriter(target, async lease => {
      checkStart(lease.row.offset, body?.start)
      const written = body === undefined ? progressOf(lease) : await this.#write(target, lease, body, { found, digest })
      received.resolve()
      await this.#close(target, lease, written, digest)
    }).catch(async (error: unknown) => {
      // Where this fails too, the session expires.
      if (whole) await this.#discard(target).catch(() => undefined)
      throw error
    })
    const tooLong = received.promise
      .then(() => delay(CLOSE_LIMIT_MS, undefined, { signal: answered.signal, ref: false }))
      .then(
        () => 'reading' as const,
        () => 'answered' as const,
      )
    try {
      if ((await Promise.race([closed, tooLong])) === 'reading') {
        // The work goes on and commits; if it fails, the client's next try meets the same failure and is told.
        closed.catch(() => undefined)
        throw new RegistryError('UNAVAILABLE', {
          message: 'the content is being verified, repeat the request',
          headers: { 'Retry-After': '5' },
        })
      }
    } finally {
      answered.abort()
    }
  }

  /** Whether the repository has the blob; the answer is the same promise as that of a HEAD. */
  async #isPresent(name: RepositoryName, digest: Digest): Promise<boolean> {
    try {
      await statBlob(this.#context, this.#blobs, name, digest, { mayPush: true })
      return true
    } catch (error) {
      if (error instanceof RegistryError && error.code === 'BLOB_UNKNOWN') return false
      throw error
    }
  }

  /** Ends a session and forgets its bytes. @throws RegistryError BLOB_UPLOAD_UNKNOWN. */
  async cancel(target: UploadTarget): Promise<void> {
    await this.#find(target)
    if (!(await this.#discard(target))) throw unknownUpload(target)
  }

  async #discard({ id }: UploadTarget): Promise<boolean> {
    this.#hashes.forget(id)
    return await this.#context.db.transaction(tx => rows.discardUpload(tx, id, CANCEL_GRACE_MS))
  }

  async #find(target: UploadTarget): Promise<rows.FoundUpload> {
    const row = await rows.findUpload(this.#context.db, target.name, target.id)
    if (row === undefined) throw unknownUpload(target)
    return row
  }

  /** Runs `work` as the only writer whose bytes can become the session's. */
  async #asWriter<T>(target: UploadTarget, work: (lease: UploadLease) => Promise<T>): Promise<T> {
    const { db, stores } = this.#context
    return await this.#leases.hold(target.id, async lease => {
      try {
        if (!lease.row.abandoned) return await work(lease)
        // The writer before may be late, not dead.
        const before = lease.row.store_state as WriteState
        const state = await stores.of(lease.row.store).fence(before)
        if (state.key === before.key) return await work(lease)
        const move = { id: target.id, epoch: lease.row.epoch, state, graceMs: CANCEL_GRACE_MS }
        if (!(await db.transaction(tx => rows.moveUpload(tx, move)))) throw unknownUpload(target)
        return await work({ ...lease, row: { ...lease.row, store_state: state } })
      } catch (error) {
        throw lease.signal.aborted ? lease.signal.reason : error
      }
    })
  }

  async #write(
    target: UploadTarget,
    lease: UploadLease,
    body: UploadBody,
    { found, digest }: { readonly found: rows.FoundUpload; readonly digest?: Digest },
  ): Promise<Progress> {
    const { db, stores, lifetimes } = this.#context
    const { row } = lease
    const { length, most = length } = body
    const store = stores.of(row.store)
    const algorithms: DigestAlgorithm[] = found.uses_sha512 ? ['sha256', 'sha512'] : ['sha256']
    const hash = this.#hashes.resume(row, algorithms)
    let progress: Progress = progressOf(lease)
    const onDurable = async (state: WriteState): Promise<void> => {
      progress = { offset: state.offset, state, prefix: prefixAt(hash, state.offset) }
      const ours = await db.transaction(tx =>
        rows.saveUpload(tx, {
          id: row.id,
          epoch: row.epoch,
          ...progress,
          expiryMs: lifetimes.uploadExpiryMs,
        }),
      )
      if (!ours) throw unknownUpload(target)
      if (most === undefined) await reserve(state.offset)
    }
    const reserve = async (bytes: number): Promise<void> => await this.#reserve(found, row.epoch, bytes, digest)
    await reserve(row.offset + (most ?? 0))
    const announced = new AnnouncedLength(most)
    try {
      await store.append(row.store_state as WriteState, body.stream, {
        observe(bytes) {
          announced.take(bytes)
          hash?.update(bytes)
        },
        onDurable,
        signal: AbortSignal.any([lease.signal, body.signal]),
        length,
        last: digest !== undefined,
        attempt: row.epoch,
      })
    } catch (error) {
      throw error instanceof RangeExceeded ? pastRange(progress.offset) : refusalOf(error, target)
    } finally {
      if (hash !== undefined && hash.offset === progress.offset) this.#hashes.keep(row.id, hash)
    }
    return progress
  }

  /** Refuses what cannot fit, before its bytes are taken and while they come; what the repository has already costs nothing. */
  async #reserve(found: rows.FoundUpload, epoch: number, bytes: number, digest: Digest | undefined): Promise<void> {
    if (found.quotas.length === 0) return
    await this.#context.db.transaction(async tx => {
      if (digest !== undefined && (await hasLink(tx, found.repository_id, digest))) return
      await checkRoom(tx, { id: found.repository_id, quotas: found.quotas }, Math.max(bytes, 1), found.id)
      await rows.reserveUpload(tx, found.id, epoch, bytes)
    })
  }

  async #close(target: UploadTarget, lease: UploadLease, written: Progress, digest: Digest): Promise<void> {
    const store = this.#context.stores.of(lease.row.store)
    const algorithm = algorithmOf(digest)
    let actual = written.prefix[algorithm]
    if (actual !== undefined && actual !== digest) throw wrongDigest(digest, actual)
    const key = await store.finish(written.state).catch((error: unknown) => {
      throw refusalOf(error, target)
    })
    if (actual === undefined) {
      actual = await readDigest(store, key, algorithm, lease.signal)
      if (actual !== digest) {
        // What is finished cannot be added to, so no later request could make it right.
        await this.#discard(target)
        throw wrongDigest(digest, actual)
      }
    }
    await this.#commit(target, lease, { digest, size: written.offset, key })
    this.#hashes.forget(target.id)
  }

  /** One transaction: the session goes, the blob and its link come. */
  async #commit(target: UploadTarget, lease: UploadLease, blob: FinishedBlob): Promise<void> {
    const { db, lifetimes } = this.#context
    const { store } = lease.row
    await db.transaction(async tx => {
      const repository = await holdRepository(tx, target.name)
      if (repository.id !== lease.row.repository_id) {
        throw new RegistryError('NAME_UNKNOWN', { detail: { name: target.name } })
      }
      if (algorithmOf(blob.digest) === 'sha512') await rememberSha512(tx, repository.id)
      if (!(await rows.removeUpload(tx, lease.row.id, lease.row.epoch))) throw unknownUpload(target)
      const held = await holdBlob(tx, {
        digest: blob.digest,
        size: blob.size,
        store,
        key: blob.key,
      })
      if (held.storage_key !== blob.key) {
        const ours = { store, key: blob.key, size: blob.size }
        const replaced = held.damaged ? await repairBlob(tx, held.id, ours) : undefined
        const spare = replaced === undefined ? ours : { ...ours, store: replaced.store, key: replaced.storage_key }
        await trashBytes(tx, { ...spare, digest: blob.digest, graceMs: lifetimes.trashGraceMs })
      }
      const link = { repositoryId: repository.id, blobId: held.id, digest: blob.digest }
      const inserted = await linkBlob(tx, { ...link, leaseMs: lifetimes.leaseMs })
      if (inserted) await addUsage(tx, repository, { links: [{ blob_id: held.id, size: blob.size }] })
    })
  }
}

/** Bytes of a cancelled session stay this long, so that a writer that has not noticed yet is over. */
const CANCEL_GRACE_MS = 60_000

interface Progress {
  readonly offset: number
  readonly state: WriteState
  readonly prefix: rows.PrefixDigests
}

interface FinishedBlob {
  readonly digest: Digest
  readonly size: number
  readonly key: StorageKey
}

async function readDigest(
  store: BlobStore,
  key: StorageKey,
  algorithm: DigestAlgorithm,
  signal: AbortSignal,
): Promise<Digest> {
  const hash = createHash(algorithm)
  for await (const bytes of store.read(key, signal)) hash.update(bytes)
  return digestOf(algorithm, hash.digest('hex'))
}

function progressOf({ row }: UploadLease): Progress {
  const state = row.store_state as WriteState
  const prefix = row.offset === 0 ? new RunningHash(['sha256', 'sha512']).digests() : row.prefix_digest
  return { offset: row.offset, state, prefix }
}

/** The digests to record with a durable offset: only where exactly that much was hashed. */
function prefixAt(hash: RunningHash | undefined, offset: number): rows.PrefixDigests {
  return hash?.offset === offset ? hash.digests() : {}
}
