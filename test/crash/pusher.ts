import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { MANIFEST, manifestOf, offsetIn, sha256 } from '../support/push.ts'
import type { AcknowledgedBlob, InterruptedUpload, Ledger, Random } from './model.ts'

const REPOSITORIES = ['crash/a', 'crash/b', 'crash/deep/c'] as const
const LARGEST_LAYER = 3_000_000
const CONFIG = Buffer.from('{}')

/** The server died, or this side gave up because it did. */
class Cut extends Error {
  override readonly name = 'Cut'
}

export interface PusherOptions {
  readonly id: number
  readonly url: string
  readonly random: Random
  readonly ledger: Ledger
  /** Told before each request. */
  readonly onRequest: () => void
}

/** One client that pushes image after image until its server dies. Its tags and manifests are its own. */
export class Pusher {
  readonly #options: PusherOptions

  constructor(options: PusherOptions) {
    this.#options = options
  }

  /** Pushes until the server is gone. @throws when an answer is none that a healthy server gives. */
  async run(): Promise<void> {
    const { random } = this.#options
    try {
      for (;;) {
        if (random.chance(0.5)) await this.resumeOne()
        await this.#pushImage()
        if (random.chance(0.3)) await this.#deleteTagged()
      }
    } catch (error) {
      if (!(error instanceof Cut)) throw error
      this.#options.ledger.cutRequests += 1
    }
  }

  /** Goes on with an interrupted upload where it was, if there is one. */
  async resumeOne(): Promise<boolean> {
    const { ledger } = this.#options
    const upload = ledger.interrupted.shift()
    if (upload === undefined) return false
    try {
      const status = await this.#ask(upload.path)
      if (status.status === 404) {
        // The kill came after the commit and before the answer: then the blob is there.
        const head = await this.#ask(`/v2/${upload.repository}/blobs/${upload.digest}`, { method: 'HEAD' })
        assert.equal(head.status, 200, `the session of ${upload.digest} is gone, and so is its blob`)
      } else {
        assert.equal(status.status, 204)
        const offset = offsetIn(status)
        assert.ok(offset >= upload.acknowledged, `${offset} bytes of ${upload.acknowledged} acknowledged are left`)
        assert.ok(offset <= upload.bytes.byteLength)
        await this.#sendRest(upload, offset)
        ledger.resumed += 1
      }
      ledger.acknowledgeBlob(upload.repository, { digest: upload.digest, size: upload.bytes.byteLength })
      return true
    } catch (error) {
      if (error instanceof Cut) ledger.interrupted.push(upload)
      throw error
    }
  }

  async #ask(path: string, init: RequestInit = {}): Promise<Response> {
    this.#options.onRequest()
    try {
      return await fetch(`${this.#options.url}${path}`, { ...init, redirect: 'manual' })
    } catch (cause) {
      throw new Cut('no answer', { cause })
    }
  }

  async #pushImage(): Promise<void> {
    const { random, ledger, id } = this.#options
    const repository = random.pick(REPOSITORIES)
    const layers = []
    for (let count = random.between(1, 3); count > 0; count--) {
      layers.push((await this.#mount(repository)) ?? (await this.#pushBlob(repository)))
    }
    await this.#pushBlob(repository, CONFIG)
    const body = manifestOf(CONFIG, [], {
      layers: layers.map(({ digest, size }) => ({ mediaType: 'application/octet-stream', digest, size })),
      annotations: { pusher: `${id} ${random.next()}` },
    })
    const digest = sha256(body)
    const tag = ledger.tag(repository, `p${id}-${random.between(0, 2)}`)
    tag.possible.add(digest)
    tag.certain = undefined
    const put = await this.#ask(`/v2/${repository}/manifests/${tag.tag}`, {
      method: 'PUT',
      body,
      headers: { 'Content-Type': MANIFEST },
    })
    assert.equal(put.status, 201, await put.text())
    tag.certain = digest
    ledger.manifests.set(`${repository} ${digest}`, {
      repository,
      digest,
      size: Buffer.byteLength(body),
      mediaType: MANIFEST,
    })
  }

  /** Links a blob of another repository; undefined where there is none to link. */
  async #mount(repository: string): Promise<AcknowledgedBlob | undefined> {
    const { random, ledger } = this.#options
    if (!random.chance(0.25)) return undefined
    const others = [...ledger.blobs.values()].filter(blob => blob.repository !== repository)
    const source = others[random.between(0, Math.max(0, others.length - 1))]
    if (source === undefined) return undefined
    const query = `mount=${source.digest}&from=${encodeURIComponent(source.repository)}`
    const answer = await this.#ask(`/v2/${repository}/blobs/uploads/?${query}`, { method: 'POST' })
    assert.equal(answer.status, 201, 'an acknowledged blob could not be mounted')
    ledger.mounted += 1
    ledger.acknowledgeBlob(repository, source)
    return { ...source, repository }
  }

  async #pushBlob(repository: string, given?: Buffer<ArrayBuffer>): Promise<AcknowledgedBlob> {
    const { random, ledger } = this.#options
    const bytes = given ?? random.bytes(Math.ceil(LARGEST_LAYER ** random.next()) + 1)
    const digest = sha256(bytes)
    ledger.sent.add(digest)
    const started = await this.#ask(`/v2/${repository}/blobs/uploads/`, { method: 'POST' })
    assert.equal(started.status, 202)
    const upload: InterruptedUpload = {
      repository,
      path: started.headers.get('location') ?? '',
      bytes,
      digest,
      acknowledged: 0,
    }
    try {
      await this.#sendRest(upload, 0)
    } catch (error) {
      if (error instanceof Cut) ledger.interrupted.push(upload)
      throw error
    }
    ledger.acknowledgeBlob(repository, { digest, size: bytes.byteLength })
    return { repository, digest, size: bytes.byteLength }
  }

  /** Sends what is missing in one of the ways of the specification, and closes. */
  async #sendRest(upload: InterruptedUpload, from: number): Promise<void> {
    const { random } = this.#options
    const { bytes, path, digest } = upload
    const way = random.pick(['monolithic', 'chunked', 'streamed'])
    let offset = from
    if (way === 'streamed' && offset < bytes.byteLength) {
      const body = Readable.toWeb(Readable.from(slices(bytes.subarray(offset), 64 * 1024)))
      const streamed = { method: 'PATCH', body, duplex: 'half' } as RequestInit
      offset = await this.#chunkTaken(upload, await this.#ask(path, streamed), bytes.byteLength)
    }
    while (way === 'chunked' && offset < bytes.byteLength) {
      const chunk = bytes.subarray(offset, offset + random.between(1, 1_000_000))
      const headers = { 'Content-Range': `${offset}-${offset + chunk.byteLength - 1}` }
      const answer = await this.#ask(path, { method: 'PATCH', body: chunk, headers })
      offset = await this.#chunkTaken(upload, answer, offset + chunk.byteLength)
    }
    const rest = offset < bytes.byteLength ? bytes.subarray(offset) : null
    const closed = await this.#ask(`${path}?digest=${digest}`, { method: 'PUT', body: rest })
    assert.equal(closed.status, 201, `close of ${way}, ${from}-${bytes.byteLength}: ${await closed.text()}`)
  }

  async #chunkTaken(upload: InterruptedUpload, answer: Response, offset: number): Promise<number> {
    assert.equal(answer.status, 202, await answer.text())
    upload.acknowledged = offset
    return offset
  }

  /** Deletes the manifest of one of this pusher's tags, which takes that tag along. */
  async #deleteTagged(): Promise<void> {
    const { id, ledger, random } = this.#options
    const mine = [...ledger.tags.values()].filter(
      tag => tag.tag.startsWith(`p${id}-`) && typeof tag.certain === 'string',
    )
    const target = mine[random.between(0, Math.max(0, mine.length - 1))]
    if (target === undefined || typeof target.certain !== 'string') return
    const digest = target.certain
    target.certain = undefined
    ledger.manifests.delete(`${target.repository} ${digest}`)
    const answer = await this.#ask(`/v2/${target.repository}/manifests/${digest}`, { method: 'DELETE' })
    assert.equal(answer.status, 202)
    target.certain = null
    ledger.deleted += 1
  }
}

function* slices(bytes: Buffer, size: number): Generator<Buffer> {
  for (let at = 0; at < bytes.byteLength; at += size) yield bytes.subarray(at, at + size)
}
