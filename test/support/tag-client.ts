import { createHash } from 'node:crypto'

const INDEX = 'application/vnd.oci.image.index.v1+json'

/** An answer of the registry, its body read. */
export interface TagAnswer {
  readonly status: number
  /** The code of the first error, where there is one: distribution-spec, "Error Codes". */
  readonly code: string | undefined
  readonly message: string | undefined
  readonly digest: string | undefined
}

/** The index of no images that `text` makes, and its digest. */
export function textIndex(text: string): { readonly body: string; readonly digest: string } {
  const body = JSON.stringify({ schemaVersion: 2, mediaType: INDEX, manifests: [], annotations: { text } })
  return { body, digest: `sha256:${createHash('sha256').update(body).digest('hex')}` }
}

/** Sends a request about the manifest of a reference, with an `Authorization` header. */
export async function askManifest(
  url: string,
  authorization: string,
  request: { readonly method: string; readonly name: string; readonly reference: string; readonly body?: string },
): Promise<TagAnswer> {
  const { method, name, reference, body } = request
  const response = await fetch(`${url}/v2/${name}/manifests/${reference}`, {
    method,
    headers: { Authorization: authorization, ...(body === undefined ? {} : { 'Content-Type': INDEX }) },
    ...(body === undefined ? {} : { body }),
  })
  const text = await response.text()
  const [error] =
    response.status < 400 || text === ''
      ? []
      : (JSON.parse(text) as { errors: { code: string; message: string }[] }).errors
  return {
    status: response.status,
    code: error?.code,
    message: error?.message,
    digest: response.headers.get('docker-content-digest') ?? undefined,
  }
}

/** Pushes the index of a text under a tag, or under its digest with `?tag=` for each of `tags`. */
export async function pushText(
  url: string,
  authorization: string,
  push: { readonly name: string; readonly text: string; readonly tag?: string; readonly tags?: readonly string[] },
): Promise<TagAnswer> {
  const { body, digest } = textIndex(push.text)
  const query = new URLSearchParams((push.tags ?? []).map((tag): [string, string] => ['tag', tag]))
  const reference = push.tag ?? `${digest}?${query.toString()}`
  return await askManifest(url, authorization, { method: 'PUT', name: push.name, reference, body })
}
