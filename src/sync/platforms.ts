import { type Digest, tryParseDigest } from '../oci/digest.ts'

/** An entry of an index, as far as platforms go: image-spec, "Image Index". */
interface Entry {
  readonly digest: Digest
  readonly platform: string | undefined
  /** What an attestation of BuildKit is about. */
  readonly about: string | undefined
}

/**
 * Which entries of an index are wanted: those of the platforms (`linux/arm64` is any variant of it), those that say
 * nothing of a platform, and attestations (BuildKit: platform unknown, and an annotation that names the image) of what
 * is wanted. Pure.
 */
export function wantedEntries(
  index: Uint8Array,
  platforms: readonly string[] | undefined,
): (digest: Digest) => boolean {
  if (platforms === undefined) return () => true
  const entries = entriesOf(index)
  const isWanted = ({ platform }: Entry): boolean =>
    platform === undefined || platforms.some(wanted => platform === wanted || platform.startsWith(`${wanted}/`))
  const wanted = new Set<string>(entries.filter(isWanted).map(({ digest }) => digest))
  const followers = entries.filter(({ about }) => about !== undefined && wanted.has(about))
  for (const { digest } of followers) wanted.add(digest)
  return digest => wanted.has(digest)
}

function entriesOf(index: Uint8Array): readonly Entry[] {
  const body = JSON.parse(Buffer.from(index).toString('utf8')) as { readonly manifests?: unknown }
  if (!Array.isArray(body.manifests)) return []
  return (body.manifests as readonly unknown[]).flatMap(value => {
    const { digest: text, platform, annotations } = fieldsOf(value)
    const digest = typeof text === 'string' ? tryParseDigest(text) : undefined
    if (digest === undefined) return []
    const about = fieldsOf(annotations)['vnd.docker.reference.digest']
    return [{ digest, platform: platformOf(platform), about: typeof about === 'string' ? about : undefined }]
  })
}

function platformOf(value: unknown): string | undefined {
  const { os, architecture, variant } = fieldsOf(value)
  if (typeof os !== 'string' || typeof architecture !== 'string') return undefined
  return [os, architecture, ...(typeof variant === 'string' && variant !== '' ? [variant] : [])].join('/')
}

function fieldsOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
}
