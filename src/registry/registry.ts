import type { DigestAlgorithm, Digest } from '../oci/digest.ts'
import type { Reference, RepositoryName } from '../oci/name.ts'
import type { ByteRange } from '../storage/blob-store.ts'
import type { Writable } from 'node:stream'
import * as blobs from './blobs.ts'
import type { Caller, RegistryContext, VisibleNames } from './context.ts'
import * as deletion from './delete-manifest.ts'
import * as lists from './lists.ts'
import * as manifests from './manifests.ts'
import { PayloadCache } from './payload-cache.ts'
import * as repositories from './repositories.ts'
import * as history from './tag-history.ts'
import * as undeletion from './undelete.ts'
import type { UploadTarget } from './upload-refusals.ts'
import { type UploadBody, Uploads } from './uploads.ts'

type Bound<F> = F extends (context: RegistryContext, ...args: infer A) => infer R ? (...args: A) => R : never

/** The use cases, one method each; what every method means stands with the function it calls. */
export interface Registry {
  /** Whoever `looks` does not want the bytes: a mirror need not fetch them. */
  statBlob(
    name: RepositoryName,
    digest: Digest,
    caller: Caller,
    ask?: { readonly looks: boolean },
  ): Promise<blobs.BlobInfo>
  sendBlob(blob: blobs.BlobInfo, range: ByteRange | undefined, to: Writable, signal: AbortSignal): Promise<void>
  redirectBlob(blob: blobs.BlobInfo, contentType: string): Promise<URL | undefined>
  mountBlob(
    mount: { name: RepositoryName; digest: Digest; from: RepositoryName | undefined; visible: VisibleNames },
    caller: Caller,
  ): Promise<boolean>
  deleteBlob(name: RepositoryName, digest: Digest, caller: Caller): Promise<void>
  startUpload(name: RepositoryName, caller: Caller, algorithm?: DigestAlgorithm, whole?: boolean): Promise<string>
  uploadStatus(target: UploadTarget): Promise<number>
  appendUpload(target: UploadTarget, body: UploadBody): Promise<number>
  finishUpload(target: UploadTarget, digest: Digest, body: UploadBody | undefined, whole?: boolean): Promise<void>
  cancelUpload(target: UploadTarget): Promise<void>
  statManifest(name: RepositoryName, reference: Reference, caller: Caller): Promise<manifests.ManifestInfo>
  readManifest(manifest: manifests.ManifestInfo): Promise<Uint8Array>
  countPull(manifest: manifests.ManifestInfo, reference: Reference, method: string, caller: Caller): void
  pushManifest(push: manifests.ManifestPush, caller: Caller): Promise<manifests.PushedManifest>
  deleteManifest(name: RepositoryName, reference: Reference, caller: Caller): Promise<void>
  deleteManifestByAdmin: Bound<typeof deletion.deleteManifestByAdmin>
  undeleteManifest: Bound<typeof undeletion.undeleteManifest>
  undeleteTag: Bound<typeof undeletion.undeleteTag>
  listTagHistory: Bound<typeof history.listTagHistory>
  rollBackTag: Bound<typeof history.rollBackTag>
  listRepositories: Bound<typeof repositories.listRepositories>
  listDeletedRepositories: Bound<typeof repositories.listDeletedRepositories>
  describeRepository: Bound<typeof repositories.describeRepository>
  deleteRepository: Bound<typeof repositories.deleteRepository>
  undeleteRepository: Bound<typeof repositories.undeleteRepository>
  listTags(name: RepositoryName, last: string, limit: number, caller: Caller): Promise<lists.Page<string>>
  listCatalog(visible: VisibleNames, last: string, limit: number): Promise<lists.Page<string>>
  listReferrers(
    name: RepositoryName,
    subject: Digest,
    ask: { artifactTypes: readonly string[]; last: string; limit: number | undefined },
    caller: Caller,
  ): Promise<lists.Page<lists.Referrer>>
}

/** Binds the use cases to what they work with. */
export function createRegistry(context: RegistryContext): Registry {
  const payloads = new PayloadCache()
  const manifestLookUp = manifests.openManifestLookUp(context)
  const blobLookUp = blobs.openBlobLookUp(context)
  const uploads = new Uploads(context, blobLookUp)
  return {
    statBlob: (name, digest, caller) => blobs.statBlob(context, blobLookUp, name, digest, caller),
    sendBlob: (...args) => blobs.sendBlob(context, ...args),
    redirectBlob: (...args) => blobs.redirectBlob(context, ...args),
    mountBlob: (...args) => blobs.mountBlob(context, ...args),
    deleteBlob: (...args) => blobs.deleteBlob(context, ...args),
    startUpload: (...args) => uploads.start(...args),
    uploadStatus: target => uploads.status(target),
    appendUpload: (...args) => uploads.append(...args),
    finishUpload: (...args) => uploads.finish(...args),
    cancelUpload: target => uploads.cancel(target),
    statManifest: (...args) => manifests.statManifest(context, manifestLookUp, ...args),
    readManifest: manifest => payloads.get(manifest.id, () => manifests.readManifest(context, manifest)),
    countPull: (manifest, reference, method, { principal }) =>
      context.pulls?.count(manifest, reference, method, principal),
    pushManifest: (...args) => manifests.pushManifest(context, ...args),
    deleteManifest: (...args) => deletion.deleteManifest(context, ...args),
    deleteManifestByAdmin: (...args) => deletion.deleteManifestByAdmin(context, ...args),
    undeleteManifest: (...args) => undeletion.undeleteManifest(context, ...args),
    undeleteTag: (...args) => undeletion.undeleteTag(context, ...args),
    listTagHistory: (...args) => history.listTagHistory(context, ...args),
    rollBackTag: (...args) => history.rollBackTag(context, ...args),
    listRepositories: (...args) => repositories.listRepositories(context, ...args),
    listDeletedRepositories: (...args) => repositories.listDeletedRepositories(context, ...args),
    describeRepository: (...args) => repositories.describeRepository(context, ...args),
    deleteRepository: (...args) => repositories.deleteRepository(context, ...args),
    undeleteRepository: (...args) => repositories.undeleteRepository(context, ...args),
    listTags: (...args) => lists.listTags(context, ...args),
    listCatalog: (...args) => lists.listCatalog(context, ...args),
    listReferrers: (...args) => lists.listReferrers(context, ...args),
  }
}
