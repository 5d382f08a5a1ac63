import type { RepositoryName } from '../oci/name.ts'
import type { Registry } from '../registry/registry.ts'
import type { BlobMirror } from './blobs.ts'
import { mirroredReferrers, mirroredTags } from './lists.ts'
import type { ManifestMirror } from './manifests.ts'
import type { Mirror } from './mirror.ts'

/** What a registry with mirrors is made of. */
export interface MirroredRegistryOptions {
  readonly mirrors: readonly Mirror[]
  /** The repositories that are our own. */
  readonly own: Registry
  /** Those that are copies: the same rows and bytes, kept for as long as they are used. */
  readonly copies: Registry
  readonly manifests: ManifestMirror
  readonly blobs: BlobMirror
}

/** A registry in which the repositories of mirrors are filled from their upstreams as they are pulled. */
export function createMirroredRegistry({ mirrors, own, copies, manifests, blobs }: MirroredRegistryOptions): Registry {
  const mirrorOf = (name: RepositoryName): Mirror | undefined => mirrors.find(mirror => mirror.has(name))
  /** Lets through what changes a repository of our own. */
  const changes = async <T>(name: RepositoryName, change: () => Promise<T>): Promise<T> => {
    const mirror = mirrorOf(name)
    if (mirror !== undefined) throw mirror.readOnly(name)
    return await change()
  }
  return {
    statManifest: async (name, reference, caller) => {
      const mirror = mirrorOf(name)
      if (mirror === undefined) return await own.statManifest(name, reference, caller)
      return await manifests.stat(mirror, name, reference, caller)
    },
    readManifest: manifest => own.readManifest(manifest),
    countPull: (...args) => own.countPull(...args),
    statBlob: async (name, digest, caller, ask) => {
      const mirror = mirrorOf(name)
      if (mirror === undefined) return await own.statBlob(name, digest, caller)
      return await blobs.stat(mirror, name, digest, caller, ask)
    },
    sendBlob: async (blob, range, to, signal) => {
      await (blobs.isFlight(blob) ? blobs : own).sendBlob(blob, range, to, signal)
    },
    redirectBlob: async (blob, type) => (blobs.isFlight(blob) ? undefined : await own.redirectBlob(blob, type)),
    listTags: async (name, last, limit, caller) => {
      const mirror = mirrorOf(name)
      if (mirror === undefined) return await own.listTags(name, last, limit, caller)
      return await mirroredTags(mirror, copies, name, last, limit, caller)
    },
    listReferrers: async (name, subject, ask, caller) => {
      const mirror = mirrorOf(name)
      if (mirror === undefined) return await own.listReferrers(name, subject, ask, caller)
      return await mirroredReferrers(mirror, copies, name, subject, ask, caller)
    },
    listCatalog: (...args) => own.listCatalog(...args),
    mountBlob: (mount, caller) => changes(mount.name, () => own.mountBlob(mount, caller)),
    deleteBlob: (name, ...rest) => changes(name, () => own.deleteBlob(name, ...rest)),
    startUpload: (name, ...rest) => changes(name, () => own.startUpload(name, ...rest)),
    uploadStatus: target => changes(target.name, () => own.uploadStatus(target)),
    appendUpload: (target, body) => changes(target.name, () => own.appendUpload(target, body)),
    finishUpload: (target, ...rest) => changes(target.name, () => own.finishUpload(target, ...rest)),
    cancelUpload: target => changes(target.name, () => own.cancelUpload(target)),
    pushManifest: (push, caller) => changes(push.name, () => own.pushManifest(push, caller)),
    deleteManifest: (name, ...rest) => changes(name, () => own.deleteManifest(name, ...rest)),
    deleteManifestByAdmin: (what, caller) => changes(what.name, () => own.deleteManifestByAdmin(what, caller)),
    undeleteManifest: (name, ...rest) => changes(name, () => own.undeleteManifest(name, ...rest)),
    undeleteTag: (what, caller) => changes(what.name, () => own.undeleteTag(what, caller)),
    listTagHistory: (...args) => own.listTagHistory(...args),
    rollBackTag: (what, caller) => changes(what.name, () => own.rollBackTag(what, caller)),
    listRepositories: (...args) => own.listRepositories(...args),
    listDeletedRepositories: (...args) => own.listDeletedRepositories(...args),
    describeRepository: (...args) => own.describeRepository(...args),
    // Copies may be thrown away: they come again as they are pulled.
    deleteRepository: (...args) => own.deleteRepository(...args),
    undeleteRepository: (...args) => own.undeleteRepository(...args),
  }
}
