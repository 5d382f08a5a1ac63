import { RegistryError } from './errors.ts'

declare const digestBrand: unique symbol
/** A digest whose grammar and algorithm were checked: `sha256:<64 hex>` or `sha512:<128 hex>`. */
export type Digest = string & { readonly [digestBrand]: true }

/** The algorithms this registry stores content under: image-spec descriptor, "Registered Algorithms". */
export type DigestAlgorithm = 'sha256' | 'sha512'

const ENCODED: Record<DigestAlgorithm, RegExp> = { sha256: /^[0-9a-f]{64}$/, sha512: /^[0-9a-f]{128}$/ }

/** Whether `name` is an algorithm content can be pushed under. */
export function isDigestAlgorithm(name: string): name is DigestAlgorithm {
  return name === 'sha256' || name === 'sha512'
}

/** The digest in `text`, or undefined where it is malformed or of an algorithm that is not supported. */
export function tryParseDigest(text: string): Digest | undefined {
  const colon = text.indexOf(':')
  const algorithm = text.slice(0, Math.max(colon, 0))
  if (!isDigestAlgorithm(algorithm) || !ENCODED[algorithm].test(text.slice(colon + 1))) return undefined
  return text as Digest
}

/**
 * The digest in `text`: image-spec descriptor, "Digests".
 * @throws RegistryError DIGEST_INVALID where it is malformed or of an algorithm that is not supported.
 */
export function parseDigest(text: string): Digest {
  const digest = tryParseDigest(text)
  if (digest === undefined) {
    throw new RegistryError('DIGEST_INVALID', {
      message: 'digest must be sha256:<64 lower-case hex> or sha512:<128 lower-case hex>',
      detail: { digest: text.slice(0, 200) },
    })
  }
  return digest
}

/** The algorithm part of a digest. */
export function algorithmOf(digest: Digest): DigestAlgorithm {
  return digest.startsWith('sha256:') ? 'sha256' : 'sha512'
}

/** A digest from an algorithm and the hex of a finished hash. */
export function digestOf(algorithm: DigestAlgorithm, hex: string): Digest {
  return parseDigest(`${algorithm}:${hex}`)
}
