import { createHash } from 'node:crypto'
import { Writable } from 'node:stream'
import { DatabaseUnavailable } from '../../src/metadata/database.ts'
import type { Digest } from '../../src/oci/digest.ts'
import { RegistryError } from '../../src/oci/errors.ts'
import type { RepositoryName, Tag } from '../../src/oci/name.ts'
import type { Registry } from '../../src/registry/registry.ts'
import type { BlobStore } from '../../src/storage/blob-store.ts'
import type { Random } from '../support/random.ts'
import { type ModelOptions, REPOSITORIES, type Scene, TAG_NAMES } from './model-world.ts'

const NOBODY = { mayPush: false }

/** Pulls what a random tag points to, and looks for a random referrer. */
export async function pull(scene: Scene, random: Random): Promise<void> {
  const { result } = scene
  const fault = await pullFault(scene, random.pick(REPOSITORIES), random.pick(TAG_NAMES))
  if (fault !== undefined) result.violations.push(fault)
  result.pulls += 1
  if (scene.referrers.length > 0) await checkReferrer(scene, random)
}

/** A subject keeps its referrers, whatever else happens. Subjects of the model are never pushed twice. */
async function checkReferrer({ registry, referrers, result }: Scene, random: Random): Promise<void> {
  const place = random.between(0, referrers.length - 1)
  const referrer = referrers[place]
  if (referrer === undefined) return
  const { name, subject, digest } = referrer
  const isThere = async (of: Digest): Promise<boolean> => (await digestOf(registry, name, { digest: of })) !== undefined
  if (!(await isThere(subject))) referrers.splice(place, 1)
  else if (!(await isThere(digest)) && (await isThere(subject))) {
    result.violations.push(`${name}@${digest} is gone, and its subject ${subject} is there`)
  }
}

async function digestOf(
  registry: Registry,
  name: RepositoryName,
  reference: Parameters<Registry['statManifest']>[1],
): Promise<Digest | undefined> {
  try {
    return (await registry.statManifest(name, reference, NOBODY)).digest
  } catch (error) {
    if (error instanceof RegistryError && error.code === 'MANIFEST_UNKNOWN') return undefined
    throw error
  }
}

/** What is wrong with the image that a tag points to, or undefined; a tag that moves meanwhile is looked at anew. */
export async function pullFault(
  { registry, store }: Pick<ModelOptions, 'registry' | 'store'>,
  name: RepositoryName,
  tag: Tag,
): Promise<string | undefined> {
  for (;;) {
    const digest = await digestOf(registry, name, { tag })
    if (digest === undefined) return undefined
    const fault = await imageFault(registry, store, name, digest)
    // A fault counts where the tag pointed to the image before and after: it was kept all the time.
    if (fault === undefined || (await digestOf(registry, name, { tag })) === digest) {
      const again = fault === undefined ? undefined : await imageFault(registry, store, name, digest)
      if (again === undefined || (await digestOf(registry, name, { tag })) === digest) return again
    }
  }
}

async function imageFault(
  registry: Registry,
  store: BlobStore,
  name: RepositoryName,
  digest: Digest,
): Promise<string | undefined> {
  try {
    const manifest = await registry.statManifest(name, { digest }, NOBODY)
    const body = parseBody(await registry.readManifest(manifest))
    for (const child of body.manifests ?? []) {
      const fault = await imageFault(registry, store, name, child.digest)
      if (fault !== undefined) return `${name}@${digest}: ${fault}`
    }
    for (const blob of [...(body.config === undefined ? [] : [body.config]), ...(body.layers ?? [])]) {
      const fault = await blobFault(registry, store, name, blob.digest)
      if (fault !== undefined) return `${name}@${digest}: ${fault}`
    }
    return undefined
  } catch (error) {
    if (error instanceof DatabaseUnavailable) throw error
    return `${name}@${digest} cannot be read: ${error instanceof Error ? error.message : String(error)}`
  }
}

/** What is wrong with a blob that must be there, or undefined. */
export async function blobFault(
  registry: Registry,
  store: BlobStore,
  name: RepositoryName,
  digest: Digest,
): Promise<string | undefined> {
  try {
    const found = await registry.statBlob(name, digest, NOBODY)
    const hash = createHash('sha256')
    const sink = new Writable({
      write(chunk: Buffer, _encoding, done) {
        hash.update(chunk)
        done()
      },
    })
    await store.send(found.key, undefined, sink, new AbortController().signal)
    return `sha256:${hash.digest('hex')}` === digest ? undefined : `${digest} has other bytes`
  } catch (error) {
    if (error instanceof DatabaseUnavailable) throw error
    return `${digest} cannot be read: ${error instanceof Error ? error.message : String(error)}`
  }
}

/** The parts of a manifest that the model cares about. */
export interface Body {
  readonly mediaType: string
  readonly config?: { readonly digest: Digest }
  readonly layers?: readonly { readonly digest: Digest }[]
  readonly manifests?: readonly { readonly digest: Digest }[]
  readonly annotations?: Readonly<Record<string, string>>
}

/** What a manifest says. */
export function parseBody(bytes: Uint8Array): Body {
  return JSON.parse(Buffer.from(bytes).toString('utf8')) as Body
}
