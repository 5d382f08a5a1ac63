import { type Digest, tryParseDigest } from './digest.ts'
import { RegistryError } from './errors.ts'
import { JsonFault, parseUntrustedJson } from './json.ts'
import {
  OCI_INDEX,
  OCI_MANIFEST,
  baseMediaType,
  isForeignLayer,
  isIndexMediaType,
  isManifestMediaType,
} from './media-types.ts'
import { isStorable } from './text.ts'

/** image-spec, "Content Descriptors". `size` in bytes. */
export interface Descriptor {
  readonly mediaType: string
  readonly digest: Digest
  readonly size: number
  readonly artifactType?: string
  readonly annotations?: Readonly<Record<string, string>>
  readonly urls?: readonly string[]
}

/** What the registry needs to know of a manifest; its bytes are kept as they came. */
export interface ParsedManifest {
  readonly kind: 'image' | 'index'
  readonly mediaType: string
  /** As a referrers list shows it: the manifest's own, else an image's config type; none for an index without one. */
  readonly artifactType?: string
  readonly subject?: Descriptor
  readonly annotations?: Readonly<Record<string, string>>
  /** Each blob once. Foreign layers are left out; an index's entries that are not manifests need not exist. */
  readonly blobs: readonly { readonly digest: Digest; readonly required: boolean }[]
  /** Each manifest that an index names, once. */
  readonly children: readonly Digest[]
  /** How many layers of an image lie elsewhere, so that nothing of them is stored here. */
  readonly foreignLayers: number
}

type JsonObject = Readonly<Record<string, unknown>>

/**
 * Parses an image manifest or index (OCI, or Docker schema 2). The type is the Content-Type's, else the body's
 * `mediaType`, else what its shape says.
 * @throws RegistryError MANIFEST_INVALID saying what is wrong.
 */
export function parseManifest(bytes: Uint8Array, contentType: string | undefined): ParsedManifest {
  const body = object(parseBody(bytes), 'the manifest')
  if (body['schemaVersion'] !== 2) throw invalid('schemaVersion must be 2')
  const hasLayers = isPresent(body['layers'])
  const hasManifests = isPresent(body['manifests'])
  if (hasLayers && hasManifests) throw invalid('layers and manifests exclude each other')
  const mediaType = mediaTypeOf(body, contentType)
  const subject = isPresent(body['subject']) ? descriptor(body['subject'], 'subject') : undefined
  const annotations = isPresent(body['annotations']) ? stringMap(body['annotations'], 'annotations') : undefined
  const shared = {
    mediaType,
    ...(subject === undefined ? {} : { subject }),
    ...(annotations === undefined ? {} : { annotations }),
  }
  const own = optionalString(body['artifactType'], 'artifactType')
  if (isIndexMediaType(mediaType)) {
    if (hasLayers) throw invalid(`a body with layers is not of type ${mediaType}`)
    if (body['manifests'] === undefined) throw invalid('manifests is missing')
    const entries = descriptors(body['manifests'], 'manifests')
    const children = entries.filter(entry => isManifestMediaType(entry.mediaType))
    const others = entries.filter(entry => !isManifestMediaType(entry.mediaType))
    return {
      ...shared,
      kind: 'index',
      ...(own === undefined || own === '' ? {} : { artifactType: own }),
      blobs: distinct(others).map(digest => ({ digest, required: false })),
      children: distinct(children),
      foreignLayers: 0,
    }
  }
  if (hasManifests) throw invalid(`a body with manifests is not of type ${mediaType}`)
  const config = descriptor(body['config'], 'config')
  const layers = descriptors(body['layers'], 'layers')
  const stored = layers.filter(layer => !isForeignLayer(layer.mediaType) && layer.urls === undefined)
  return {
    ...shared,
    kind: 'image',
    artifactType: own === undefined || own === '' ? config.mediaType : own,
    blobs: distinct([config, ...stored]).map(digest => ({ digest, required: true })),
    children: [],
    foreignLayers: layers.length - stored.length,
  }
}

function parseBody(bytes: Uint8Array): unknown {
  try {
    return parseUntrustedJson(bytes)
  } catch (error) {
    if (error instanceof JsonFault) throw invalid(`the manifest cannot be read: ${error.message}`)
    throw error
  }
}

/** Content types that say nothing about what kind of manifest this is. */
const UNTOLD: ReadonlySet<string> = new Set(['', 'application/json', 'application/octet-stream'])

function mediaTypeOf(body: JsonObject, contentType: string | undefined): string {
  const told = baseMediaType(contentType ?? '')
  const inner = optionalString(body['mediaType'], 'mediaType') ?? ''
  const shape = 'manifests' in body && !isPresent(body['config']) ? OCI_INDEX : OCI_MANIFEST
  const mediaType = UNTOLD.has(told) ? inner || shape : told
  if (!isManifestMediaType(mediaType)) {
    throw invalid(`the type ${mediaType.slice(0, 200)} is not an image manifest or index, OCI or Docker schema 2`)
  }
  if (inner !== '' && inner !== mediaType) throw invalid('mediaType is not the Content-Type it was sent with')
  return mediaType
}

/** Go encodes a slice, map or pointer that is nil as null: it says no more than a field that is not there. */
function isPresent(value: unknown): boolean {
  return value !== undefined && value !== null
}

function descriptors(value: unknown, path: string): Descriptor[] {
  if (!isPresent(value)) return []
  if (!Array.isArray(value)) throw invalid(`${path} must be an array`)
  return value.map((entry, index) => descriptor(entry, `${path}[${index}]`))
}

function descriptor(value: unknown, path: string): Descriptor {
  const entry = object(value, path)
  const mediaType = optionalString(entry['mediaType'], `${path}.mediaType`)
  if (mediaType === undefined || mediaType === '') throw invalid(`${path}.mediaType is missing`)
  const digest = typeof entry['digest'] === 'string' ? tryParseDigest(entry['digest']) : undefined
  if (digest === undefined) throw invalid(`${path}.digest is not a sha256 or sha512 digest`)
  const size = entry['size']
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
    throw invalid(`${path}.size must be a non-negative integer`)
  }
  const artifactType = optionalString(entry['artifactType'], `${path}.artifactType`)
  const annotations = isPresent(entry['annotations'])
    ? stringMap(entry['annotations'], `${path}.annotations`)
    : undefined
  const urls = entry['urls']
  const hasUrls = Array.isArray(urls) && urls.length > 0
  return {
    mediaType,
    digest,
    size,
    ...(artifactType === undefined ? {} : { artifactType }),
    ...(annotations === undefined ? {} : { annotations }),
    ...(hasUrls ? { urls: urls.map(String) } : {}),
  }
}

function object(value: unknown, path: string): JsonObject {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw invalid(`${path} must be an object`)
  return value as JsonObject
}

function optionalString(value: unknown, path: string): string | undefined {
  if (value === undefined) return undefined
  if (typeof value !== 'string') throw invalid(`${path} must be a string`)
  checkText(value, path)
  return value
}

function stringMap(value: unknown, path: string): Readonly<Record<string, string>> {
  const entries = Object.entries(object(value, path))
  for (const [key, text] of entries) {
    if (typeof text !== 'string') throw invalid(`${path} must map strings to strings`)
    checkText(key, path)
    checkText(text, path)
  }
  return Object.fromEntries(entries) as Record<string, string>
}

function checkText(text: string, path: string): void {
  if (!isStorable(text)) throw invalid(`${path} must not contain NUL or half a surrogate pair`)
}

function distinct(entries: readonly Descriptor[]): Digest[] {
  return [...new Set(entries.map(entry => entry.digest))]
}

function invalid(message: string): RegistryError {
  return new RegistryError('MANIFEST_INVALID', { message })
}
