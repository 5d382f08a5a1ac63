import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'

export const MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
export const CONFIG = 'application/vnd.oci.image.config.v1+json'

export type Bytes = Uint8Array<ArrayBuffer>

export const sha256 = (bytes: Uint8Array | string): string =>
  `sha256:${createHash('sha256').update(bytes).digest('hex')}`
export const sha512 = (bytes: Uint8Array | string): string =>
  `sha512:${createHash('sha512').update(bytes).digest('hex')}`

/** Opens an upload session; answers its absolute location. */
export async function openUpload(url: string, name: string): Promise<string> {
  const started = await fetch(`${url}/v2/${name}/blobs/uploads/`, { method: 'POST' })
  assert.equal(started.status, 202)
  return new URL(started.headers.get('location') ?? '', url).href
}

/** Bytes that a session holds: distribution-spec, "Resuming an upload". */
export async function offsetOf(location: string): Promise<number> {
  const status = await fetch(location)
  assert.equal(status.status, 204)
  return offsetIn(status)
}

/** The offset that a `Range` answer header tells. */
export function offsetIn(response: Response): number {
  const end = Number(/^0-(\d+)$/.exec(response.headers.get('range') ?? '')?.[1])
  assert.ok(Number.isInteger(end), 'no Range in the answer')
  // An empty session says 0-0, which one byte says as well; no test uses one byte.
  return end === 0 ? 0 : end + 1
}

export async function patch(location: string, bytes: Bytes, start?: number): Promise<Response> {
  const range = start === undefined ? {} : { 'Content-Range': `${start}-${start + bytes.byteLength - 1}` }
  return await fetch(location, { method: 'PATCH', body: bytes, headers: range })
}

export async function close(location: string, digest: string, bytes?: Bytes): Promise<Response> {
  return await fetch(`${location}?digest=${digest}`, { method: 'PUT', body: bytes ?? null })
}

/** Pushes one blob in one piece; answers its digest. */
export async function pushBlob(url: string, name: string, bytes: Bytes): Promise<string> {
  const digest = sha256(bytes)
  const closed = await close(await openUpload(url, name), digest, bytes)
  assert.equal(closed.status, 201)
  return digest
}

/** The manifest of an image of these blobs. */
export function manifestOf(config: Uint8Array, layers: readonly Uint8Array[], more: object = {}): string {
  return JSON.stringify({
    schemaVersion: 2,
    mediaType: MANIFEST,
    config: { mediaType: CONFIG, digest: sha256(config), size: config.byteLength },
    layers: layers.map(layer => ({
      mediaType: 'application/vnd.oci.image.layer.v1.tar',
      digest: sha256(layer),
      size: layer.byteLength,
    })),
    ...more,
  })
}

export async function putManifest(url: string, name: string, reference: string, body: string): Promise<Response> {
  return await fetch(`${url}/v2/${name}/manifests/${reference}`, {
    method: 'PUT',
    body,
    headers: { 'Content-Type': MANIFEST },
  })
}

/** Asserts that an answer is a success with exactly these bytes; comparing them one by one would take minutes to print. */
export async function assertBytes(response: Response, bytes: Uint8Array): Promise<void> {
  assert.ok(response.ok, `answered ${response.status}`)
  const got = Buffer.from(await response.arrayBuffer())
  assert.equal(got.byteLength, bytes.byteLength)
  assert.equal(sha256(got), sha256(bytes))
}

/** Asserts an answer of a broken backend: 5xx with `Retry-After` (RFC 9110 section 10.2.3) and the spec's error body. */
export async function assertUnavailable(response: Response): Promise<void> {
  assert.equal(response.status, 503)
  assert.match(response.headers.get('retry-after') ?? '', /^\d+$/)
  const { errors } = (await response.json()) as { errors: { code: string }[] }
  assert.equal(errors.length, 1)
}
