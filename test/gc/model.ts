import { randomBytes } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { Writable } from 'node:stream'
import { createHash } from 'node:crypto'
import { purgeTrash } from '../../src/gc/purge.ts'
import type { SweepOptions } from '../../src/gc/sweep.ts'
import type { Database } from '../../src/metadata/database.ts'
import type { Digest } from '../../src/oci/digest.ts'
import { RegistryError } from '../../src/oci/errors.ts'
import { OCI_MANIFEST } from '../../src/oci/media-types.ts'
import { type RepositoryName, type Tag, parseName, parseReference } from '../../src/oci/name.ts'
import type { Registry } from '../../src/registry/registry.ts'
import type { BlobStore } from '../../src/storage/blob-store.ts'
import { PUSHER, pushBlob, sha256 } from '../support/registry.ts'

const GRACE_MS = 300
const REPOSITORIES = ['race/a', 'race/b', 'race/c'].map(parseName)
const TAGS = 12
/** Layers that everybody uses, and layers that come and go. */
const HOT_LAYERS = 4
const WARM_LAYERS = 40

/** One sweep of everything that is due; the real one, or a broken one that the model must catch. */
export type Sweep = (db: Database, options: SweepOptions) => Promise<{ readonly blobs: number }>

/** How one process of the model stands: blobs collected, and things seen that must never happen. */
export interface Progress {
  readonly collected: number
  readonly violations: number
}

/** What one process of the model works with. */
export interface ModelOptions {
  readonly db: Database
  readonly registry: Registry
  readonly store: BlobStore
  readonly sweep: Sweep
  /** Leases are cut to this, so that a run sees very many of them end. Milliseconds. */
  readonly leaseMs: number
  readonly seed: number
  readonly pushers: number
  readonly deleters: number
  readonly pullers: number
  readonly collectors: number
  readonly signal: AbortSignal
  /** Told after every sweep how it stands. */
  readonly onProgress: (progress: Progress) => void
}

/** What one process of the model did and saw. */
export interface ModelResult {
  pushes: number
  /** Pushes refused because the client was slower than its lease. */
  late: number
  mounts: number
  skips: number
  deletes: number
  pulls: number
  collected: number
  /** What must never happen, in words. */
  violations: string[]
}

/** Runs pushers, deleters, pullers and collectors until `signal` fires. */
export async function runModel(options: ModelOptions): Promise<ModelResult> {
  const result: ModelResult = {
    pushes: 0,
    late: 0,
    mounts: 0,
    skips: 0,
    deletes: 0,
    pulls: 0,
    collected: 0,
    violations: [],
  }
  const actors: Promise<void>[] = []
  const start = (count: number, turn: (random: Random) => Promise<void>): void => {
    for (let index = 0; index < count; index++) {
      const random = createRandom(options.seed * 1_000 + actors.length)
      actors.push(act(options, result, () => turn(random)))
    }
  }
  start(options.pushers, random => push(options, result, random))
  start(options.deleters, random => remove(options, result, random))
  start(options.pullers, random => pull(options, result, random))
  start(options.collectors, random => collect(options, result, random))
  await Promise.all(actors)
  return result
}

async function act(options: ModelOptions, result: ModelResult, turn: () => Promise<void>): Promise<void> {
  while (!options.signal.aborted) {
    try {
      await turn()
    } catch (error) {
      const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error)
      result.violations.push(`an unexpected error: ${text}`)
    }
  }
}

/** A linear congruential generator: the same seed makes the same choices, though not the same interleaving. */
type Random = (below: number) => number

function createRandom(seed: number): Random {
  let state = BigInt(seed) + 88_172_645_463_325_252n
  return below => {
    state ^= (state << 13n) & 0xffff_ffff_ffff_ffffn
    state ^= state >> 7n
    state ^= (state << 17n) & 0xffff_ffff_ffff_ffffn
    return Number(state % BigInt(below))
  }
}

function pick<T>(random: Random, from: readonly T[]): T {
  const chosen = from[random(from.length)]
  if (chosen === undefined) throw new Error('nothing to pick from')
  return chosen
}

function layerContent(random: Random): Buffer<ArrayBuffer> {
  const kind = random(3)
  if (kind === 0) return Buffer.from(`hot layer ${random(HOT_LAYERS)}`)
  if (kind === 1) return Buffer.from(`warm layer ${random(WARM_LAYERS)}`)
  return randomBytes(64)
}

/** Pushes an image as a client does: HEAD and skip, mount, or upload; then the manifest, sometimes slowly. */
async function push(options: ModelOptions, result: ModelResult, random: Random): Promise<void> {
  const { registry, leaseMs } = options
  const repository = pick(random, REPOSITORIES)
  const promisedFrom = performance.now()
  const layers: Digest[] = []
  for (let count = 1 + random(4); count > 0; count--) {
    layers.push(await provide(options, result, random, repository, layerContent(random)))
  }
  const config = await provide(options, result, random, repository, randomBytes(32))
  // A slow client: up to just inside what it was promised, which is half a lease.
  const left = leaseMs / 2 - (performance.now() - promisedFrom)
  if (left > 0 && random(3) === 0) await delay(random(Math.ceil(left * 0.9)))
  const describe = (digest: Digest, type: string): object => ({ mediaType: type, digest, size: 64 })
  const bytes = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: describe(config, 'application/vnd.oci.image.config.v1+json'),
      layers: layers.map(layer => describe(layer, 'application/vnd.oci.image.layer.v1.tar')),
    }),
  )
  const sentAfter = performance.now() - promisedFrom
  const reference = parseReference(random(4) === 0 ? sha256(bytes) : `t${random(TAGS)}`)
  try {
    await registry.pushManifest({ name: repository, reference, tags: [], contentType: OCI_MANIFEST, bytes }, PUSHER)
    result.pushes += 1
  } catch (error) {
    if (!(error instanceof RegistryError) || error.code !== 'MANIFEST_BLOB_UNKNOWN') throw error
    // The lease may end while the manifest is on its way: only who was answered in time was promised anything.
    if (performance.now() - promisedFrom > leaseMs / 2) result.late += 1
    else result.violations.push(`refused ${Math.round(sentAfter)} ms after the first promise (${error.message})`)
  }
}

async function provide(
  options: ModelOptions,
  result: ModelResult,
  random: Random,
  repository: RepositoryName,
  content: Buffer<ArrayBuffer>,
): Promise<Digest> {
  const { registry } = options
  const digest = sha256(content)
  const present = await registry.statBlob(repository, digest, PUSHER).then(
    () => true,
    (error: unknown) => {
      if (error instanceof RegistryError && error.code === 'BLOB_UNKNOWN') return false
      throw error
    },
  )
  if (present) {
    result.skips += 1
    return digest
  }
  if (random(2) === 0) {
    const mounted = await registry.mountBlob(
      { name: repository, digest, from: pick(random, REPOSITORIES), visible: [] },
      PUSHER,
    )
    if (mounted) {
      result.mounts += 1
      return digest
    }
  }
  return await pushBlob(registry, repository, content)
}

async function remove(options: ModelOptions, result: ModelResult, random: Random): Promise<void> {
  const { registry } = options
  await delay(20 + random(60))
  const name = pick(random, REPOSITORIES)
  const tag = parseReference(`t${random(TAGS)}`)
  try {
    const target = await registry.statManifest(name, tag, { mayPush: false })
    await registry.deleteManifest(name, random(2) === 0 ? tag : { digest: target.digest }, PUSHER)
    result.deletes += 1
  } catch (error) {
    if (!(error instanceof RegistryError)) throw error
  }
}

async function pull(options: ModelOptions, result: ModelResult, random: Random): Promise<void> {
  const name = pick(random, REPOSITORIES)
  const tag = parseReference(`t${random(TAGS)}`) as { readonly tag: Tag }
  const fault = await pullFault(options, name, tag.tag)
  if (fault !== undefined) result.violations.push(fault)
  result.pulls += 1
}

/** What is wrong with the image that a tag points to, or undefined; a tag that moves meanwhile is looked at anew. */
export async function pullFault(
  { registry, store }: Pick<ModelOptions, 'registry' | 'store'>,
  name: RepositoryName,
  tag: Tag,
): Promise<string | undefined> {
  const nobody = { mayPush: false }
  const digestOf = async (): Promise<Digest | undefined> =>
    await registry.statManifest(name, { tag }, nobody).then(
      manifest => manifest.digest,
      () => undefined,
    )
  for (;;) {
    const digest = await digestOf()
    if (digest === undefined) return undefined
    const fault = await imageFault(registry, store, name, digest)
    // A fault counts where the tag pointed to the image before and after: it was kept all the time.
    if (fault === undefined || (await digestOf()) === digest) {
      const again = fault === undefined ? undefined : await imageFault(registry, store, name, digest)
      if (again === undefined || (await digestOf()) === digest) return again
    }
  }
}

async function imageFault(
  registry: Registry,
  store: BlobStore,
  name: RepositoryName,
  digest: Digest,
): Promise<string | undefined> {
  const nobody = { mayPush: false }
  let at: string = digest
  try {
    const manifest = await registry.statManifest(name, { digest }, nobody)
    const bytes = await registry.readManifest(manifest)
    const body = JSON.parse(Buffer.from(bytes).toString('utf8')) as {
      config: { digest: Digest }
      layers: { digest: Digest }[]
    }
    for (const blob of [body.config, ...body.layers]) {
      at = blob.digest
      const found = await registry.statBlob(name, blob.digest, nobody)
      const hash = createHash('sha256')
      const sink = new Writable({
        write(chunk: Buffer, _encoding, done) {
          hash.update(chunk)
          done()
        },
      })
      await store.send(found.key, undefined, sink, new AbortController().signal)
      if (`sha256:${hash.digest('hex')}` !== blob.digest) return `${name}@${digest}: ${at} has other bytes`
    }
    return undefined
  } catch (error) {
    return `${name}@${digest}: ${at} cannot be read: ${error instanceof Error ? error.message : String(error)}`
  }
}

async function collect(options: ModelOptions, result: ModelResult, random: Random): Promise<void> {
  await delay(random(30))
  const { db, store, leaseMs } = options
  const swept = await options.sweep(db, { batch: 1 + random(50), leaseMs, trashGraceMs: GRACE_MS })
  result.collected += swept.blobs
  options.onProgress({ collected: result.collected, violations: result.violations.length })
  await purgeTrash(db, store)
}

/** Every tag the model uses. */
export function everyTag(): { readonly name: RepositoryName; readonly tag: Tag }[] {
  return REPOSITORIES.flatMap(name =>
    Array.from({ length: TAGS }, (_, index) => {
      const { tag } = parseReference(`t${index}`) as { readonly tag: Tag }
      return { name, tag }
    }),
  )
}
