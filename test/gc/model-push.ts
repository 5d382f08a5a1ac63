import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import type { Digest } from '../../src/oci/digest.ts'
import { RegistryError } from '../../src/oci/errors.ts'
import { OCI_INDEX, OCI_MANIFEST } from '../../src/oci/media-types.ts'
import type { Reference, RepositoryName } from '../../src/oci/name.ts'
import type { Registry } from '../../src/registry/registry.ts'
import type { Random } from '../support/random.ts'
import { PUSHER, pushBlob, sha256 } from '../support/registry.ts'
import { blobFault, parseBody } from './model-pull.ts'
import { REPOSITORIES, type Scene, TAG_NAMES } from './model-world.ts'

/** Layers that everybody uses, and layers that come and go. */
const HOT_LAYERS = 4
const WARM_LAYERS = 40
/** A process remembers no more referrers than it can look at. */
const REFERRERS = 100
/** Marks images that are pushed once and never again. */
const ONCE = { model: 'once' }

/** The client was slower than what it was promised, and gives up. */
export class TooLate extends Error {
  override readonly name = 'TooLate'
}

/** One push of a client: what it was promised begins with its first request. */
interface Push {
  readonly scene: Scene
  readonly random: Random
  readonly name: RepositoryName
  readonly promisedFrom: number
}

function begin(scene: Scene, random: Random): Push {
  return { scene, random, name: random.pick(REPOSITORIES), promisedFrom: performance.now() }
}

/** A tag, or now and then only the digest. */
function referenceFor(random: Random, bytes: Uint8Array): Reference {
  return random.between(0, 3) === 0 ? { digest: sha256(bytes) } : { tag: random.pick(TAG_NAMES) }
}

/** Pushes an image as a client does: HEAD and skip, mount, or upload; then the manifest, sometimes slowly. */
export async function pushImage(scene: Scene, random: Random): Promise<void> {
  const push = begin(scene, random)
  const bytes = await makeImage(push, { annotations: ONCE })
  await beSlow(push)
  await put(push, scene.registry, referenceFor(random, bytes), bytes)
}

/** Pushes images and an index of them: the images first, or, in an index of the index, as a mirror the index first. */
export async function pushIndex(scene: Scene, random: Random): Promise<void> {
  const push = begin(scene, random)
  const images = []
  for (let count = random.between(1, 2); count > 0; count--) images.push(await makeImage(push, {}))
  const index = indexOf(images)
  const isSparse = random.between(0, 1) === 0
  if (isSparse) await put(push, scene.lax, { digest: sha256(index) }, index)
  for (const image of images) await put(push, scene.registry, { digest: sha256(image) }, image)
  await beSlow(push)
  const top = isSparse ? indexOf([index]) : index
  await put(push, scene.registry, referenceFor(random, top), top)
  scene.result.indexes += 1
}

/** Pushes what refers to an image that is there, as a signature does, and remembers it. */
export async function pushReferrer(scene: Scene, random: Random): Promise<void> {
  const { registry, referrers, result } = scene
  const push = begin(scene, random)
  const target = await findTagged(push)
  if (target === undefined) return
  const subject = target.digest
  if (parseBody(target.bytes).annotations?.['model'] !== ONCE.model) return
  const bytes = await makeImage(push, { subject: describe(subject, OCI_MANIFEST) })
  await put(push, registry, { digest: sha256(bytes) }, bytes)
  referrers.push({ name: push.name, subject, digest: sha256(bytes) })
  if (referrers.length > REFERRERS) referrers.shift()
  result.referrers += 1
}

/** Moves a tag from an index to one of its children, and later back, as a client that finds all of it there already. */
export async function moveTag(scene: Scene, random: Random): Promise<void> {
  const { registry, result } = scene
  const { name } = begin(scene, random)
  const tag = random.pick(TAG_NAMES)
  const index = await stat(registry, name, { tag })
  const children = index === undefined ? [] : (parseBody(index.bytes).manifests ?? [])
  if (index === undefined || children.length === 0) return
  const toChild: Push = { scene, random, name, promisedFrom: performance.now() }
  const child = await stat(registry, name, { digest: random.pick(children).digest })
  if (child === undefined) return
  await put(toChild, registry, { tag }, child.bytes)
  await delay(random.between(0, scene.times.promiseMs))
  const back: Push = { scene, random, name, promisedFrom: performance.now() }
  for (const { digest } of children) if ((await stat(registry, name, { digest })) === undefined) return
  await put(back, registry, { tag }, index.bytes)
  result.moves += 1
}

/** Opens an upload and closes it when it may be over already. */
export async function uploadSlowly(scene: Scene, random: Random): Promise<void> {
  const { registry, store, result } = scene
  const { promiseMs, uploadExpiryMs } = scene.times
  const name = random.pick(REPOSITORIES)
  const content = randomBytes(64)
  const digest = sha256(content)
  const startedAt = performance.now()
  const id = await registry.startUpload(name, PUSHER)
  await delay(random.between(Math.round(uploadExpiryMs / 2), uploadExpiryMs + 50))
  const { signal } = new AbortController()
  try {
    await registry.finishUpload({ name, id }, digest, { stream: Readable.from([content]), start: undefined, signal })
  } catch (error) {
    if (!isRefusal(error, 'BLOB_UPLOAD_UNKNOWN')) throw error
    if (performance.now() - startedAt > uploadExpiryMs) result.expired += 1
    else result.violations.push(`the upload of ${digest} ended before it expired`)
    return
  }
  const finishedAt = performance.now()
  result.uploads += 1
  // As long as it was promised, the bytes are there.
  await delay(random.between(0, promiseMs / 2))
  const fault = await blobFault(registry, store, name, digest)
  if (fault !== undefined && performance.now() - finishedAt < promiseMs)
    result.violations.push(`just uploaded: ${fault}`)
}

/** A slow client: up to just inside what it was promised. */
async function beSlow({ scene, random, promisedFrom }: Push): Promise<void> {
  const left = scene.times.promiseMs - (performance.now() - promisedFrom)
  if (left > 0 && random.between(0, 2) === 0) await delay(random.next() * left * 0.9)
}

/** @throws TooLate where the registry refused it and the client had been too slow. */
async function put(push: Push, registry: Registry, reference: Reference, bytes: Buffer<ArrayBuffer>): Promise<void> {
  const { scene, name, promisedFrom } = push
  const contentType = parseBody(bytes).mediaType
  const sentAfter = performance.now() - promisedFrom
  try {
    await registry.pushManifest({ name, reference, tags: [], contentType, bytes }, PUSHER)
    scene.result.pushes += 1
  } catch (error) {
    if (!isRefusal(error, 'MANIFEST_BLOB_UNKNOWN')) throw error
    // The lease may end while the manifest is on its way: only who was answered in time was promised anything.
    if (performance.now() - promisedFrom <= scene.times.promiseMs) {
      scene.result.violations.push(`refused ${Math.round(sentAfter)} ms after the first promise (${error.message})`)
    }
    throw new TooLate()
  }
}

/** Provides the blobs of an image and answers its manifest. */
async function makeImage(push: Push, more: object): Promise<Buffer<ArrayBuffer>> {
  const { random } = push
  const layers: Digest[] = []
  for (let count = random.between(1, 4); count > 0; count--) layers.push(await provide(push, layerContent(random)))
  const config = await provide(push, randomBytes(32))
  return Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: describe(config, 'application/vnd.oci.image.config.v1+json'),
      layers: layers.map(layer => describe(layer, 'application/vnd.oci.image.layer.v1.tar')),
      ...more,
    }),
  )
}

function indexOf(manifests: readonly Buffer<ArrayBuffer>[]): Buffer<ArrayBuffer> {
  const entries = manifests.map(bytes => describe(sha256(bytes), parseBody(bytes).mediaType))
  return Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: entries }))
}

function describe(digest: Digest, mediaType: string): object {
  return { mediaType, digest, size: 64 }
}

function layerContent(random: Random): Buffer<ArrayBuffer> {
  const kind = random.between(0, 2)
  if (kind === 0) return Buffer.from(`hot layer ${random.between(1, HOT_LAYERS)}`)
  if (kind === 1) return Buffer.from(`warm layer ${random.between(1, WARM_LAYERS)}`)
  return randomBytes(64)
}

async function provide({ scene, random, name }: Push, content: Buffer<ArrayBuffer>): Promise<Digest> {
  const { registry, result } = scene
  const digest = sha256(content)
  const present = await registry.statBlob(name, digest, PUSHER).then(
    () => true,
    (error: unknown) => {
      if (isRefusal(error, 'BLOB_UNKNOWN')) return false
      throw error
    },
  )
  if (present) {
    result.skips += 1
    return digest
  }
  if (random.between(0, 1) === 0) {
    const from = random.pick(REPOSITORIES)
    if (await registry.mountBlob({ name, digest, from, visible: [] }, PUSHER)) {
      result.mounts += 1
      return digest
    }
  }
  const startedAt = performance.now()
  try {
    return await pushBlob(registry, name, content)
  } catch (error) {
    if (!isRefusal(error, 'BLOB_UPLOAD_UNKNOWN') || performance.now() - startedAt <= scene.times.uploadExpiryMs)
      throw error
    throw new TooLate()
  }
}

/** What is under a tag or digest, with the promise that a pusher is given; undefined where there is nothing. */
async function stat(
  registry: Registry,
  name: RepositoryName,
  reference: Reference,
): Promise<{ readonly digest: Digest; readonly bytes: Buffer<ArrayBuffer> } | undefined> {
  try {
    const manifest = await registry.statManifest(name, reference, PUSHER)
    return { digest: manifest.digest, bytes: Buffer.from(await registry.readManifest(manifest)) }
  } catch (error) {
    if (isRefusal(error, 'MANIFEST_UNKNOWN')) return undefined
    throw error
  }
}

/** Some tagged manifest: most tags are deleted most of the time. */
async function findTagged({ scene, random, name }: Push): ReturnType<typeof stat> {
  for (let tries = 0; tries < TAG_NAMES.length; tries++) {
    const found = await stat(scene.registry, name, { tag: random.pick(TAG_NAMES) })
    if (found !== undefined) return found
  }
  return undefined
}

function isRefusal(error: unknown, code: RegistryError['code']): error is RegistryError {
  return error instanceof RegistryError && error.code === code
}
