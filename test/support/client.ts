import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'

export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json'
export const OCI_LAYER = 'application/vnd.oci.image.layer.v1.tar'
/** The type of the config of every image that {@link RegistryClient.pushImage} makes. */
export const CONFIG_TYPE = 'application/vnd.oci.image.config.v1+json'

/** The digest of some bytes. */
export function digestOf(bytes: Uint8Array | string, algorithm: 'sha256' | 'sha512' = 'sha256'): string {
  return `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}`
}

interface ErrorBody {
  readonly errors: readonly { readonly code: string; readonly detail?: { readonly digest?: string } }[]
}

/** Reads the error body of an answer and gives its first code. */
export async function codeOf(answer: Response): Promise<string | undefined> {
  return ((await answer.json()) as ErrorBody).errors[0]?.code
}

/** Reads the error body of an answer and gives the digests it names. */
export async function digestsOf(answer: Response): Promise<(string | undefined)[]> {
  return ((await answer.json()) as ErrorBody).errors.map(error => error.detail?.digest)
}

/** The target of a Link header to a next page (RFC 8288), or undefined. */
export function nextOf(answer: Response): string | undefined {
  return /^<([^>]+)>; rel="next"$/.exec(answer.headers.get('link') ?? '')?.[1]
}

/** Speaks to one registry; what it pushes it expects to be taken. */
export class RegistryClient {
  readonly url: string

  constructor(url: string) {
    this.url = url
  }

  async ask(path: string, init?: RequestInit): Promise<Response> {
    return await fetch(`${this.url}${path}`, { redirect: 'manual', ...init })
  }

  /** Opens an upload session; answers its location. */
  async startUpload(name: string, query = ''): Promise<string> {
    const started = await this.ask(`/v2/${name}/blobs/uploads/${query}`, { method: 'POST' })
    assert.equal(started.status, 202)
    return started.headers.get('location') ?? ''
  }

  async pushBlob(
    name: string,
    bytes: Uint8Array<ArrayBuffer> | string,
    algorithm: 'sha256' | 'sha512' = 'sha256',
  ): Promise<string> {
    const digest = digestOf(bytes, algorithm)
    const location = await this.startUpload(name)
    const closed = await this.ask(`${location}?digest=${digest}`, { method: 'PUT', body: bytes })
    assert.equal(closed.status, 201, await closed.text())
    return digest
  }

  /** Sends any manifest. */
  async putManifest(name: string, reference: string, body: object | string, type = OCI_MANIFEST): Promise<Response> {
    return await this.ask(`/v2/${name}/manifests/${reference}`, {
      method: 'PUT',
      body: typeof body === 'string' ? body : JSON.stringify(body),
      headers: { 'Content-Type': type },
    })
  }

  /** Pushes a manifest by tag, or by its digest where `reference` is empty; answers the digest. */
  async pushManifest(name: string, reference: string, body: object, type = OCI_MANIFEST): Promise<string> {
    const digest = digestOf(JSON.stringify(body))
    const put = await this.putManifest(name, reference === '' ? digest : reference, body, type)
    assert.equal(put.status, 201, await put.text())
    return digest
  }

  /** Pushes an image without layers whose manifest has the fields of `more` besides; answers its digest. */
  async pushImage(name: string, reference: string, more: object = {}): Promise<string> {
    await this.pushBlob(name, '{}')
    return await this.pushManifest(name, reference, imageOf(more))
  }

  /** Pushes an index of these manifests; answers its digest. */
  async pushIndex(name: string, reference: string, children: readonly string[], more: object = {}): Promise<string> {
    return await this.pushManifest(name, reference, indexOf(children, more), OCI_INDEX)
  }
}

/** A manifest whose config is `{}`. */
export function imageOf(more: object = {}): object {
  const config = { mediaType: CONFIG_TYPE, digest: digestOf('{}'), size: 2 }
  return { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [], ...more }
}

/** An index of manifests by digest. */
export function indexOf(children: readonly string[], more: object = {}): object {
  const manifests = children.map(digest => ({ mediaType: OCI_MANIFEST, digest, size: 1 }))
  return { schemaVersion: 2, mediaType: OCI_INDEX, manifests, ...more }
}
