import { UpstreamFailure } from '../mirror/upstream-failure.ts'
import { type Digest, tryParseDigest } from '../oci/digest.ts'
import { parseManifest } from '../oci/manifest.ts'
import { OCI_INDEX } from '../oci/media-types.ts'
import { isThere, pushBlob } from './push-blob.ts'
import { type Remote, fallbackTag } from './remote.ts'
import type { BlobOrigin, Content, Target } from './sides.ts'

/** Committing a manifest may take a registry a while. */
const ANSWER_MS = 2 * 60_000

/** The other registry as where images go: distribution-spec, "Push". */
export class RemoteTarget implements Target {
  readonly mayLackBlobs = false
  readonly #remote: Remote
  /** Indexes of referrers are changed one after the other: the last to write would win. */
  #indexing: Promise<void> = Promise.resolve()

  constructor(remote: Remote) {
    this.#remote = remote
  }

  async resolve(repository: string, tag: string): Promise<Digest | undefined> {
    return await this.#remote.resolve(repository, tag)
  }

  async find(repository: string, digest: Digest): Promise<{ readonly content?: Content } | undefined> {
    return await this.#remote.find(async (upstream, signal) => {
      // Where a HEAD tells nothing, a GET does.
      if ((await upstream.resolve(repository, digest, signal)) !== undefined) return {}
      return { content: await upstream.manifest(repository, digest, signal) }
    })
  }

  async putBlob(repository: string, digest: Digest, from: BlobOrigin): Promise<number | undefined> {
    if (await isThere(this.#remote, { repository, digest })) return undefined
    return await pushBlob(this.#remote, { repository, digest }, from)
  }

  async putManifest(repository: string, digest: Digest, content: Content): Promise<void> {
    const { subject } = parseManifest(content.bytes, content.mediaType)
    const answer = await this.#put(repository, digest, content)
    const isIndexed = subject === undefined || answer['oci-subject'] !== undefined
    if (!isIndexed) await this.#index(repository, subject.digest, digest, content)
  }

  async tag(repository: string, tag: string, _digest: Digest, content: Content): Promise<void> {
    await this.#put(repository, tag, content)
  }

  async #put(
    repository: string,
    reference: string,
    { mediaType, bytes }: Content,
  ): Promise<Readonly<Record<string, unknown>>> {
    const { upstream, patience, signal } = this.#remote
    return await patience.run(async () => {
      const answer = await upstream.change('PUT', repository, `manifests/${reference}`, {
        headers: { 'Content-Type': mediaType },
        body: bytes,
        answerMs: ANSWER_MS,
        signal,
      })
      await answer.body.dump()
      return answer.headers
    })
  }

  /**
   * A registry that does not say that it knows subjects has its clients keep the list of referrers: distribution-spec,
   * "Pushing Manifests with Subject".
   */
  async #index(repository: string, subject: Digest, digest: Digest, content: Content): Promise<void> {
    const before = this.#indexing
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#indexing = promise
    await before
    try {
      const tag = fallbackTag(subject)
      const index = await this.#remote.find((upstream, signal) => upstream.manifest(repository, tag, signal))
      const entries = entriesOf(index?.bytes)
      if (entries.some(entry => tryParseDigest(String(entry['digest'])) === digest)) return
      const { artifactType, annotations } = parseManifest(content.bytes, content.mediaType)
      const entry = { mediaType: content.mediaType, digest, size: content.bytes.byteLength, artifactType, annotations }
      const body = { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [...entries, entry] }
      await this.#put(repository, tag, { mediaType: OCI_INDEX, bytes: Buffer.from(JSON.stringify(body)) })
    } finally {
      resolve()
    }
  }
}

function entriesOf(index: Uint8Array | undefined): readonly Readonly<Record<string, unknown>>[] {
  if (index === undefined) return []
  const { manifests } = JSON.parse(Buffer.from(index).toString('utf8')) as { readonly manifests?: unknown }
  if (!Array.isArray(manifests)) throw new UpstreamFailure('refused', 'a list of referrers there is no index')
  return manifests as readonly Readonly<Record<string, unknown>>[]
}
