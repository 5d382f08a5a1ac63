import type { Writable } from 'node:stream'
import type { Digest } from '../oci/digest.ts'
import { RegistryError } from '../oci/errors.ts'
import type { RepositoryName } from '../oci/name.ts'
import * as blobs from '../metadata/blobs.ts'
import { type Transaction, sqlState } from '../metadata/database.ts'
import { insertEvent } from '../metadata/events.ts'
import { LookUp } from '../metadata/look-up.ts'
import { lockManifestsOf } from '../metadata/manifests.ts'
import { RowMemory } from '../metadata/row-memory.ts'
import { holdExistingRepository, holdRepository } from '../metadata/repositories.ts'
import type { ByteRange, StorageKey } from '../storage/blob-store.ts'
import { type Caller, type RegistryContext, type VisibleNames, checkBinding, promiseOf } from './context.ts'
import { addUsage, settleUsage } from './usage.ts'

/** A blob that the repository links: its size in bytes and where its bytes are. */
export interface BlobInfo {
  readonly size: number
  /** The name of the store, and the key there. */
  readonly store: string
  readonly key: StorageKey
}

/** Finds linked blobs, many with one statement. */
export type BlobLookUp = LookUp<blobs.BlobKey, blobs.LinkedBlob>

/** Opens the look-up of blobs that {@link statBlob} asks. */
export function openBlobLookUp({ db, lifetimes }: RegistryContext): BlobLookUp {
  const { enoughMs, maxAgeMs } = promiseOf(lifetimes)
  return new LookUp(
    keys => blobs.findLinkedBlobs(db, keys, enoughMs),
    ({ repository, digest }) => `${repository} ${digest}`,
    {},
    new RowMemory({ changes: () => db.changes(), maxAgeMs }),
  )
}

/**
 * The blob under `digest` in a repository. To a caller who may push, the answer is a promise of at least half a lease.
 * @throws RegistryError BLOB_UNKNOWN.
 */
export async function statBlob(
  context: RegistryContext,
  lookUp: BlobLookUp,
  name: RepositoryName,
  digest: Digest,
  caller: Caller,
): Promise<BlobInfo> {
  const { leaseMs } = context.lifetimes
  const blob = await lookUp.find({ repository: name, digest })
  if (blob !== undefined) {
    checkBinding(caller, blob.repository_id)
    const promised =
      !caller.mayPush ||
      blob.leased ||
      (await context.db.transaction(tx => blobs.renewLink(tx, blob.repository_id, blob.blob_id, leaseMs)))
    if (promised) return { size: blob.size, store: blob.store, key: blob.storage_key as StorageKey }
  }
  throw new RegistryError('BLOB_UNKNOWN', { detail: { digest } })
}

/** How long a redirect may be followed, in seconds; far less than bytes that lost their row stay. */
const REDIRECT_SECONDS = 20 * 60

/** Where a client may fetch the bytes itself, as `contentType`; undefined where it has to fetch them from us. */
export async function redirectBlob(
  { stores }: RegistryContext,
  { store, key }: BlobInfo,
  contentType: string,
): Promise<URL | undefined> {
  return await stores.presigningOf(store)?.presign(key, REDIRECT_SECONDS, contentType)
}

/** Writes a blob, or one range of it, to `to`: see `BlobStore.send`. */
export async function sendBlob(
  { stores }: RegistryContext,
  { store, key }: BlobInfo,
  range: ByteRange | undefined,
  to: Writable,
  signal: AbortSignal,
): Promise<void> {
  await stores.of(store).send(key, range, to, signal)
}

/**
 * Links a blob of another repository into this one without moving bytes: distribution-spec, "Mounting a blob from
 * another repository". Without `from` any repository that the caller may pull will do. False: there is no such source,
 * open a session instead.
 * @throws RegistryError DENIED where a quota has no room for it.
 */
export async function mountBlob(
  context: RegistryContext,
  mount: {
    readonly name: RepositoryName
    readonly digest: Digest
    readonly from: RepositoryName | undefined
    /** Names among which to look without `from`. */
    readonly visible: VisibleNames
  },
  caller: Caller,
): Promise<boolean> {
  try {
    return await context.db.transaction(async tx => {
      const repository = await holdRepository(tx, mount.name)
      checkBinding(caller, repository.id)
      const link = await blobs.mountBlob(tx, {
        repositoryId: repository.id,
        digest: mount.digest,
        from: mount.from,
        visible: mount.visible,
        leaseMs: context.lifetimes.leaseMs,
      })
      if (link?.inserted === true) await addUsage(tx, repository, { links: [link] })
      return link !== undefined
    })
  } catch (error) {
    // The blob was collected between the look and the link.
    if (sqlState(error) === '23503') return false
    throw error
  }
}

/**
 * Removes a blob from a repository at once: distribution-spec, "Deleting blobs".
 * @throws RegistryError BLOB_UNKNOWN; UNSUPPORTED while a manifest of the repository names it.
 */
export async function deleteBlob(
  context: RegistryContext,
  name: RepositoryName,
  digest: Digest,
  caller: Caller,
): Promise<void> {
  const repositoryId = await context.db.transaction(async tx => {
    const repository = await holdExistingRepository(tx, name)
    if (repository !== undefined) checkBinding(caller, repository.id)
    const unknown = (): RegistryError => new RegistryError('BLOB_UNKNOWN', { detail: { digest } })
    if (repository === undefined || !(await blobs.hasLink(tx, repository.id, digest))) throw unknown()
    // Looked at first without a lock: what is in use may be named by very many.
    await refuseUsed(tx, repository.id, digest)
    await lockManifestsOf(tx, repository.id, digest)
    const link = await blobs.lockLink(tx, repository.id, digest)
    if (link === undefined) throw unknown()
    await refuseUsed(tx, repository.id, digest)
    await blobs.removeLink(tx, repository.id, link.blob_id)
    await insertEvent(tx, 'blob.delete', name, { digest, principal: caller.principal })
    return repository.id
  })
  await settleUsage(context.db, repositoryId)
}

/** @throws RegistryError UNSUPPORTED while a visible manifest names the blob. */
async function refuseUsed(tx: Transaction, repositoryId: number, digest: Digest): Promise<void> {
  const user = await blobs.findUserOfBlob(tx, repositoryId, digest)
  if (user === undefined) return
  throw new RegistryError('UNSUPPORTED', {
    message: 'the blob is in use: delete the manifest that names it first',
    detail: { digest, manifest: user },
  })
}
