import { createHash, randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import type { Database } from '../../src/metadata/database.ts'
import { type Digest, parseDigest } from '../../src/oci/digest.ts'
import { OCI_INDEX, OCI_MANIFEST } from '../../src/oci/media-types.ts'
import { parseName, parseReference } from '../../src/oci/name.ts'
import type { AdminCaller, Caller, RegistryContext } from '../../src/registry/context.ts'
import { type Registry, createRegistry } from '../../src/registry/registry.ts'
import type { BlobStore } from '../../src/storage/blob-store.ts'
import { openFilesystemStore } from '../../src/storage/filesystem.ts'
import { Stores } from '../../src/storage/stores.ts'

const HOUR_MS = 3_600_000

/** The rules on a real index and a real directory, without HTTP. */
export interface TestRegistry {
  readonly registry: Registry
  readonly store: BlobStore
  close(): Promise<void>
}

/** Someone who may push. */
export const PUSHER: Caller = { mayPush: true }

/** Someone who administers content. */
export const ADMIN: AdminCaller = { mayPush: true, principal: 'admin', client: 'test', requestId: 'test' }

/** Opens the rules on `db` and a fresh directory, or on `store`. */
export async function withRegistry(
  db: Database,
  { store: given, ...more }: Partial<RegistryContext> & { readonly store?: BlobStore } = {},
): Promise<TestRegistry> {
  const directory = await mkdtemp(join(tmpdir(), 'berth-test-registry-'))
  const own = await openFilesystemStore({ directory, bufferBytes: 8 * 2 ** 20 })
  const store = given ?? own
  const registry = createRegistry({
    db,
    stores: new Stores({ store }),
    lifetimes: {
      leaseMs: HOUR_MS,
      untaggedRetentionMs: HOUR_MS,
      deleteGraceMs: HOUR_MS,
      uploadExpiryMs: HOUR_MS,
      trashGraceMs: HOUR_MS,
    },
    requireBlobs: true,
    requireChildren: false,
    allowChildDelete: false,
    ...more,
  })
  return {
    registry,
    store: more.stores?.first ?? store,
    async close() {
      await own.close()
      await rm(directory, { recursive: true, force: true })
    },
  }
}

/** The sha256 digest of bytes. */
export function sha256(bytes: Uint8Array | string): Digest {
  return parseDigest(`sha256:${createHash('sha256').update(bytes).digest('hex')}`)
}

/** Pushes a blob; random bytes where none are given. */
export async function pushBlob(registry: Registry, repository: string, bytes = randomBytes(64)): Promise<Digest> {
  const name = parseName(repository)
  const digest = sha256(bytes)
  const id = await registry.startUpload(name, PUSHER)
  const { signal } = new AbortController()
  await registry.finishUpload({ name, id }, digest, { stream: Readable.from([bytes]), start: undefined, signal })
  return digest
}

/** What {@link pushImage} pushes beyond the usual. */
export interface ImageParts {
  readonly layers?: readonly Digest[]
  readonly subject?: Digest
}

/** Pushes an image with a config of its own; under its digest where `tag` is undefined. */
export async function pushImage(
  registry: Registry,
  repository: string,
  tag: string | undefined,
  parts: ImageParts = {},
): Promise<Digest> {
  const config = await pushBlob(registry, repository)
  return await pushManifest(registry, repository, tag, imageOf(config, parts))
}

/** Pushes an index of images. */
export async function pushIndex(
  registry: Registry,
  repository: string,
  tag: string | undefined,
  children: readonly Digest[],
): Promise<Digest> {
  const manifests = children.map(digest => ({ mediaType: OCI_MANIFEST, digest, size: 300 }))
  return await pushManifest(registry, repository, tag, manifestOf(OCI_INDEX, { manifests }))
}

/** A manifest that is not pushed yet. */
export interface TestManifest {
  readonly mediaType: string
  readonly bytes: Buffer<ArrayBuffer>
  readonly digest: Digest
}

/** An image manifest of a config and layers of 64 bytes each. */
export function imageOf(config: Digest, { layers = [], subject }: ImageParts = {}): TestManifest {
  const describe = (digest: Digest, mediaType: string): object => ({ mediaType, digest, size: 64 })
  return manifestOf(OCI_MANIFEST, {
    config: describe(config, 'application/vnd.oci.image.config.v1+json'),
    layers: layers.map(layer => describe(layer, 'application/vnd.oci.image.layer.v1.tar')),
    ...(subject === undefined ? {} : { subject: describe(subject, OCI_MANIFEST) }),
  })
}

function manifestOf(mediaType: string, body: object): TestManifest {
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, ...body }))
  return { mediaType, bytes, digest: sha256(bytes) }
}

/** Pushes a manifest; under its digest where `tag` is undefined. */
export async function pushManifest(
  registry: Registry,
  repository: string,
  tag: string | undefined,
  { mediaType, bytes, digest }: TestManifest,
): Promise<Digest> {
  const reference = parseReference(tag ?? digest)
  await registry.pushManifest(
    { name: parseName(repository), reference, tags: [], contentType: mediaType, bytes },
    PUSHER,
  )
  return digest
}

/** Ends every lease and grace that would end some day, as if that day had come. */
export async function letTimePass(db: Database): Promise<void> {
  await db.transaction(async tx => {
    for (const table of ['manifest', 'repository_blob']) {
      await tx.query(
        `update ${table} set lease_until = clock_timestamp() - interval '1 second' where lease_until < 'infinity'`,
      )
    }
    await tx.query(`update trash set purge_after = clock_timestamp() - interval '1 second'`)
  })
}
