import { Transform } from 'node:stream'
import type { Digest } from '../oci/digest.ts'
import { RegistryError } from '../oci/errors.ts'
import { parseName, parseReference, parseTag } from '../oci/name.ts'
import { patternRegex } from '../oci/repository-pattern.ts'
import type { Caller } from '../registry/context.ts'
import type { Registry } from '../registry/registry.ts'
import type { LocalContext, LocalTargetContext } from './local-context.ts'
import { pullBlob } from './pull-blob.ts'
import type { BlobOrigin, BlobPart, Content, Source, Target } from './sides.ts'

const PAGE = 1_000

/** This registry as where images come from. */
export class LocalSource implements Source {
  readonly #context: LocalContext
  readonly #caller: Caller

  constructor(context: LocalContext) {
    this.#context = context
    this.#caller = { mayPush: false, principal: context.principal }
  }

  async repositories(pattern: string): Promise<readonly string[]> {
    const { registry } = this.#context
    const visible = [[patternRegex(pattern)]]
    return await pagesOf(last => registry.listCatalog(visible, last, PAGE))
  }

  async tags(repository: string): Promise<readonly string[]> {
    const { registry } = this.#context
    const name = parseName(repository)
    return await pagesOf(last => registry.listTags(name, last, PAGE, this.#caller))
  }

  async resolve(repository: string, tag: string): Promise<Digest | undefined> {
    return await resolveHere(this.#context.registry, repository, tag, this.#caller)
  }

  async manifest(repository: string, digest: Digest): Promise<Content | undefined> {
    return await manifestHere(this.#context.registry, repository, digest, this.#caller)
  }

  async referrers(repository: string, digest: Digest): Promise<readonly Digest[]> {
    const { registry } = this.#context
    const name = parseName(repository)
    const found = await pagesOf(last =>
      registry.listReferrers(name, digest, { artifactTypes: [], last, limit: undefined }, this.#caller),
    )
    return found.map(referrer => referrer.digest)
  }

  /** Reads at the pace of whoever takes the bytes. */
  async blob(repository: string, digest: Digest, start: number): Promise<BlobPart> {
    const { registry, signal } = this.#context
    const blob = await registry.statBlob(parseName(repository), digest, this.#caller)
    // A store fills its buffers anew once they are written, which for who reads from here is too early.
    const body = new Transform({
      highWaterMark: 2 ** 20,
      transform: (chunk: Buffer, _encoding, taken) => taken(null, Buffer.from(chunk)),
    })
    if (start >= blob.size) body.end()
    else {
      registry.sendBlob(blob, { start, end: blob.size - 1 }, body, signal).then(
        () => body.end(),
        (error: unknown) => body.destroy(error instanceof Error ? error : new Error(String(error))),
      )
    }
    return { body, start, size: blob.size }
  }
}

/** This registry as where images go: under its rules of tags and quotas. */
export class LocalTarget implements Target {
  readonly mayLackBlobs: boolean
  readonly #context: LocalTargetContext
  readonly #caller: Caller

  constructor(context: LocalTargetContext) {
    this.#context = context
    this.mayLackBlobs = context.mayLackBlobs
    this.#caller = { mayPush: true, principal: context.principal }
  }

  async resolve(repository: string, tag: string): Promise<Digest | undefined> {
    return await resolveHere(this.#context.registry, repository, tag, { ...this.#caller, mayPush: false })
  }

  async find(repository: string, digest: Digest): Promise<{ readonly content: Content } | undefined> {
    const content = await manifestHere(this.#context.registry, repository, digest, this.#caller)
    return content === undefined ? undefined : { content }
  }

  async putBlob(repository: string, digest: Digest, from: BlobOrigin): Promise<number | undefined> {
    const name = parseName(repository)
    return await pullBlob(this.#context, { name, digest, caller: this.#caller }, from)
  }

  async putManifest(repository: string, digest: Digest, { mediaType, bytes }: Content): Promise<void> {
    const push = { name: parseName(repository), reference: { digest }, tags: [], contentType: mediaType, bytes }
    await this.#context.registry.pushManifest(push, this.#caller)
  }

  async tag(repository: string, tag: string, digest: Digest, { mediaType, bytes }: Content): Promise<void> {
    const name = parseName(repository)
    const push = { name, reference: { digest }, tags: [parseTag(tag)], contentType: mediaType, bytes }
    await this.#context.registry.pushManifest(push, this.#caller)
  }
}

async function resolveHere(
  registry: Registry,
  repository: string,
  tag: string,
  caller: Caller,
): Promise<Digest | undefined> {
  const name = parseName(repository)
  return await unlessUnknown(async () => (await registry.statManifest(name, { tag: parseTag(tag) }, caller)).digest)
}

async function manifestHere(
  registry: Registry,
  repository: string,
  digest: Digest,
  caller: Caller,
): Promise<Content | undefined> {
  return await unlessUnknown(async () => {
    const manifest = await registry.statManifest(parseName(repository), parseReference(digest), caller)
    return { mediaType: manifest.mediaType, bytes: await registry.readManifest(manifest) }
  })
}

async function unlessUnknown<T>(find: () => Promise<T>): Promise<T | undefined> {
  try {
    return await find()
  } catch (error) {
    if (error instanceof RegistryError && error.code === 'MANIFEST_UNKNOWN') return undefined
    throw error
  }
}

async function pagesOf<T>(
  read: (last: string) => Promise<{ readonly items: readonly T[]; readonly next?: string }>,
): Promise<readonly T[]> {
  const items: T[] = []
  for (let last: string | undefined = ''; last !== undefined;) {
    const page = await read(last)
    items.push(...page.items)
    last = page.next
  }
  return items
}
