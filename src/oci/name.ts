import { type Digest, parseDigest } from './digest.ts'
import { RegistryError } from './errors.ts'

declare const nameBrand: unique symbol
declare const tagBrand: unique symbol
/** A repository name whose grammar was checked: distribution-spec, "Pulling manifests". */
export type RepositoryName = string & { readonly [nameBrand]: true }
/** A tag whose grammar was checked. */
export type Tag = string & { readonly [tagBrand]: true }

const NAME = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/
const TAG = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/

/** Many clients refuse a longer `host/name`; what could never be pulled is not taken in. */
export const MAX_NAME_LENGTH = 255

/** The repository name in `text`, or undefined where its grammar or length is wrong. */
export function tryParseName(text: string): RepositoryName | undefined {
  return text.length <= MAX_NAME_LENGTH && NAME.test(text) ? (text as RepositoryName) : undefined
}

/**
 * The repository name in `text`.
 * @throws RegistryError NAME_INVALID where its grammar is wrong or it is longer than 255 characters.
 */
export function parseName(text: string): RepositoryName {
  const name = tryParseName(text)
  if (name === undefined) throw new RegistryError('NAME_INVALID', { detail: { name: text.slice(0, 300) } })
  return name
}

/**
 * The tag in `text`.
 * @throws RegistryError TAG_INVALID where its grammar is wrong.
 */
export function parseTag(text: string): Tag {
  if (!TAG.test(text)) {
    throw new RegistryError('TAG_INVALID', {
      message: 'a tag is up to 128 characters of [a-zA-Z0-9._-] and does not start with . or -',
      detail: { tag: text.slice(0, 200) },
    })
  }
  return text as Tag
}

/** What the last part of a manifest's path names. */
export type Reference =
  | { readonly tag: Tag; readonly digest?: never }
  | { readonly digest: Digest; readonly tag?: never }

/**
 * The tag or digest in `text`; whatever holds a colon is a digest.
 * @throws RegistryError DIGEST_INVALID or TAG_INVALID.
 */
export function parseReference(text: string): Reference {
  return text.includes(':') ? { digest: parseDigest(text) } : { tag: parseTag(text) }
}
