import { LRUCache } from 'lru-cache'
import type { RepositoryName } from '../oci/name.ts'
import type { BlobInfo } from '../registry/blobs.ts'
import type { MirroredUses } from '../registry/mirrored-uses.ts'
import type { Registry } from '../registry/registry.ts'
import type { BlobMirror } from './blobs.ts'
import { mirroredReferrers, mirroredTags } from './lists.ts'
import type { ManifestMirror } from './manifests.ts'
import type { Mirror } from './mirror.ts'
import type { MirrorSet } from './mirror-set.ts'

const MOST_FLIGHTS = 10_000

/** What a registry with mirrors is made of. */
export interface MirroredRegistryOptions {
  readonly mirrors: MirrorSet
  /** The repositories that are our own. */
  readonly own: Registry
  /** Those that are copies: the same rows and bytes, kept for as long as they are used. */
  readonly copies: Registry
  readonly manifests: ManifestMirror
  readonly blobs: BlobMirror
  /** Told what is asked for: what was not for longest goes first. */
  readonly uses: MirroredUses
}

/** A registry in which the repositories of mirrors are filled from their upstreams as they are pulled. */
export function createMirroredRegistry(options: MirroredRegistryOptions): Registry {
  const { mirrors, own, copies, manifests, blobs, uses } = options
  const mirrorOf = (name: RepositoryName): Mirror | undefined => mirrors.find(name)
  /** Whose a blob is that was found, for when it is sent. */
  const owners = new WeakMap<BlobInfo, Mirror>()
  /** Fetches that were counted: whoever shares one asks nothing more of the upstream. */
  const flights = new LRUCache<BlobInfo['key'], true>({ max: MOST_FLIGHTS })
  const countBlob = (blob: BlobInfo, bytes: number): void => {
    const stats = owners.get(blob)?.stats
    if (blobs.isFlight(blob) && !flights.has(blob.key)) {
      flights.set(blob.key, true)
      stats?.add('blobMisses')
    } else {
      stats?.add('blobHits')
      stats?.add('savedBytes', bytes)
    }
  }
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
      const manifest = await manifests.stat(mirror, name, reference, caller)
      uses.noteManifest(mirror.options.prefix, name, manifest.digest)
      return manifest
    },
    readManifest: async manifest => manifest.payload ?? (await own.readManifest(manifest)),
    countPull: (manifest, ...rest) => {
      if (manifest.payload === undefined) own.countPull(manifest, ...rest)
    },
    statBlob: async (name, digest, caller, ask) => {
      const mirror = mirrorOf(name)
      if (mirror === undefined) return await own.statBlob(name, digest, caller)
      // What is not allowed any more is not given either, though it is here.
      mirror.upstreamName(name)
      const blob = await blobs.stat(mirror, name, digest, caller, ask)
      owners.set(blob, mirror)
      uses.noteBlob(mirror.options.prefix, name, digest)
      return blob
    },
    sendBlob: async (blob, range, to, signal) => {
      countBlob(blob, range === undefined ? blob.size : range.end - range.start + 1)
      await (blobs.isFlight(blob) ? blobs : own).sendBlob(blob, range, to, signal)
    },
    redirectBlob: async (blob, type) => {
      const address = blobs.isFlight(blob) ? undefined : await own.redirectBlob(blob, type)
      if (address !== undefined) countBlob(blob, blob.size)
      return address
    },
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
    mountBlob: async (mount, caller) =>
      await changes(mount.name, async () => {
        const { from } = mount
        // What is not allowed any more is no source, though it is here.
        if (from !== undefined && mirrorOf(from)?.allows(from) === false) return false
        const visible = [...mount.visible, ...mirrors.all.flatMap(({ options }) => options.allowedNames)]
        return await own.mountBlob({ ...mount, visible }, caller)
      }),
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
