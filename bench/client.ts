import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { Agent, type IncomingHttpHeaders, type IncomingMessage, request } from 'node:http'
import type { Server } from './servers.ts'

/** A whole answer; `body` is empty where the request asked to drain it. */
export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
  readonly bodyBytes: number
  /** From the last byte sent to the head of the answer. */
  readonly waitedMs: number
}

export interface Ask {
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Content | Buffer
  /** Body without a length, as a client sends that compresses on the way. */
  readonly chunked?: boolean
  /** Counts the answer's bytes instead of keeping them. */
  readonly drain?: boolean
  /** Takes the answer's bytes. */
  readonly onBytes?: (bytes: Buffer) => void
}

const CHUNK_BYTES = 2 ** 20
const RANDOM = randomBytes(CHUNK_BYTES)
const agent = new Agent({ keepAlive: true, maxSockets: 256 })

/** Content of any size that needs no memory: one random chunk over and over behind a head of its own. */
export class Content {
  readonly bytes: number
  readonly digest: string
  readonly #head = randomBytes(64)

  constructor(bytes: number) {
    this.bytes = bytes
    const hash = createHash('sha256')
    for (const chunk of this.chunks()) hash.update(chunk)
    this.digest = `sha256:${hash.digest('hex')}`
  }

  *chunks(): Generator<Buffer> {
    let left = this.bytes
    const head = this.#head.subarray(0, left)
    yield head
    left -= head.byteLength
    for (; left > 0; left -= CHUNK_BYTES) yield left < CHUNK_BYTES ? RANDOM.subarray(0, left) : RANDOM
  }
}

/** One request on a kept connection. @throws when the connection fails. */
export async function ask(server: Server, method: string, target: string, options: Ask = {}): Promise<Answer> {
  const { body, chunked = false } = options
  const length = body instanceof Content ? body.bytes : (body?.byteLength ?? 0)
  const framing: Record<string, string> =
    body === undefined ? {} : chunked ? { 'Transfer-Encoding': 'chunked' } : { 'Content-Length': String(length) }
  const shown = server.authorization === undefined ? {} : { Authorization: server.authorization }
  const outgoing = request(new URL(target, server.url), {
    method,
    agent,
    headers: { ...shown, ...options.headers, ...framing },
  })
  const answered = once(outgoing, 'response') as Promise<[IncomingMessage]>
  answered.catch(() => undefined) // awaited below, where it is thrown
  if (body instanceof Content) {
    // Who refuses answers early, and takes no more.
    const refused = answered.then(() => true)
    for (const chunk of body.chunks()) {
      if (outgoing.write(chunk)) continue
      const drained = once(outgoing, 'drain').then(() => false)
      if (await Promise.race([drained, refused])) break
    }
    outgoing.end()
  } else outgoing.end(body)
  const sent = performance.now()
  const [incoming] = await answered
  const waitedMs = performance.now() - sent
  const kept: Buffer[] = []
  let bodyBytes = 0
  for await (const bytes of incoming as AsyncIterable<Buffer>) {
    bodyBytes += bytes.byteLength
    options.onBytes?.(bytes)
    if (options.drain !== true) kept.push(bytes)
  }
  return {
    status: incoming.statusCode ?? 0,
    headers: incoming.headers,
    body: Buffer.concat(kept),
    bodyBytes,
    waitedMs,
  }
}

/** The answer, which must have that status. */
export async function expect(
  status: number,
  server: Server,
  method: string,
  target: string,
  options: Ask = {},
): Promise<Answer> {
  const answer = await ask(server, method, target, options)
  if (answer.status !== status) {
    throw new Error(`${server.name}: ${method} ${target}: ${answer.status} ${answer.body.toString().slice(0, 300)}`)
  }
  return answer
}

/** How a blob is pushed: with a length in the closing PUT, or as one PATCH without a length and an empty close. */
export type PushWay = 'monolithic' | 'streamed'

/** Pushes a blob; answers the milliseconds from its last byte to the final 201. */
export async function pushBlob(server: Server, name: string, content: Content, way: PushWay): Promise<number> {
  const opened = await expect(202, server, 'POST', `/v2/${name}/blobs/uploads/`)
  const type = { 'Content-Type': 'application/octet-stream' }
  let place = locationOf(server, opened)
  let waitedMs = 0
  if (way === 'streamed') {
    const patched = await expect(202, server, 'PATCH', place.href, { headers: type, body: content, chunked: true })
    place = locationOf(server, patched)
    waitedMs = patched.waitedMs
  }
  place.searchParams.set('digest', content.digest)
  const body = way === 'streamed' ? Buffer.alloc(0) : content
  const done = await expect(201, server, 'PUT', place.href, { headers: type, body })
  if (done.headers['docker-content-digest'] !== content.digest) throw new Error(`${server.name}: another digest`)
  return waitedMs + done.waitedMs
}

function locationOf(server: Server, answer: Answer): URL {
  return new URL(answer.headers.location ?? '', server.url)
}

/** Reads a blob and checks its length, and its digest where `verify`. */
export async function pullBlob(
  server: Server,
  name: string,
  { bytes, digest }: { readonly bytes: number; readonly digest: string },
  verify = false,
): Promise<void> {
  const hash = createHash('sha256')
  const onBytes = verify ? { onBytes: (chunk: Buffer) => void hash.update(chunk) } : {}
  const answer = await expect(200, server, 'GET', `/v2/${name}/blobs/${digest}`, { drain: true, ...onBytes })
  if (answer.bodyBytes !== bytes) throw new Error(`${server.name}: ${answer.bodyBytes} bytes of ${bytes}`)
  if (verify && `sha256:${hash.digest('hex')}` !== digest) throw new Error(`${server.name}: other bytes`)
}

export const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json'

/** A manifest of six layers, which are all one blob; `note` makes it unlike others. */
export function manifestOf(config: Content, note: string): Buffer {
  const entry = (mediaType: string) => ({ mediaType, digest: config.digest, size: config.bytes })
  return Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MANIFEST_TYPE,
      config: entry('application/vnd.oci.image.config.v1+json'),
      layers: Array.from({ length: 6 }, () => entry('application/vnd.oci.image.layer.v1.tar+gzip')),
      annotations: { note },
    }),
  )
}

export async function pushManifest(server: Server, name: string, tag: string, bytes: Buffer): Promise<void> {
  const headers = { 'Content-Type': MANIFEST_TYPE }
  await expect(201, server, 'PUT', `/v2/${name}/manifests/${tag}`, { headers, body: bytes })
}

/** Runs `work` for every number below `count`, at most `atOnce` at a time. */
export async function forEach(count: number, atOnce: number, work: (index: number) => Promise<void>): Promise<void> {
  let next = 0
  const lane = async (): Promise<void> => {
    while (next < count) await work(next++)
  }
  await Promise.all(Array.from({ length: Math.min(atOnce, count) }, lane))
}
