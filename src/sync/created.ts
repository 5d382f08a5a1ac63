import type { Digest } from '../oci/digest.ts'
import { parseManifest } from '../oci/manifest.ts'
import type { Source } from './sides.ts'

/** The config of an image is a small document. */
const CONFIG_MAX_BYTES = 4 * 2 ** 20
const ANNOTATION = 'org.opencontainers.image.created'

/**
 * When an image was built: by its annotation, else by its config (image-spec, "OCI Image Configuration"), of an index by
 * its first image. Undefined where nothing says so, or the tag is gone. @throws UpstreamFailure, RegistryError
 */
export async function createdOf(source: Source, repository: string, tag: string): Promise<Date | undefined> {
  const digest = await source.resolve(repository, tag)
  return digest === undefined ? undefined : await createdBy(source, repository, digest, 0)
}

async function createdBy(source: Source, repository: string, digest: Digest, depth: number): Promise<Date | undefined> {
  const content = await source.manifest(repository, digest)
  if (content === undefined) return undefined
  const parsed = parseManifest(content.bytes, content.mediaType === '' ? undefined : content.mediaType)
  const annotated = dateOf(parsed.annotations?.[ANNOTATION])
  if (annotated !== undefined) return annotated
  const [child] = parsed.children
  if (parsed.kind === 'index') {
    return child === undefined || depth > 0 ? undefined : await createdBy(source, repository, child, depth + 1)
  }
  // The config is the first of an image's blobs.
  const [config] = parsed.blobs
  return config === undefined ? undefined : dateOf(await readCreated(source, repository, config.digest))
}

async function readCreated(source: Source, repository: string, config: Digest): Promise<unknown> {
  const { body } = await source.blob(repository, config, 0)
  try {
    const chunks: Buffer[] = []
    let size = 0
    for await (const chunk of body) {
      size += (chunk as Buffer).byteLength
      if (size > CONFIG_MAX_BYTES) return undefined
      chunks.push(chunk as Buffer)
    }
    return (JSON.parse(Buffer.concat(chunks).toString('utf8')) as { readonly created?: unknown } | null)?.created
  } catch {
    // What cannot be read says nothing of its age.
    return undefined
  } finally {
    body.destroy()
  }
}

function dateOf(value: unknown): Date | undefined {
  const time = typeof value === 'string' ? Date.parse(value) : Number.NaN
  return Number.isNaN(time) ? undefined : new Date(time)
}
