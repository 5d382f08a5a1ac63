import { createHash, randomBytes } from 'node:crypto'
import { crc32 } from 'node:zlib'

/** What a secret is for: a user's personal token, a robot's secret, or a refresh token. */
export type SecretKind = 'pat' | 'robot' | 'refresh'

const PREFIX: Readonly<Record<SecretKind, string>> = { pat: 'berth_pat_', robot: 'berth_rob_', refresh: 'berth_ref_' }
const RANDOM_BYTES = 24
const SECRET = /^(berth_(?:pat|rob|ref)_)([A-Za-z0-9_-]{32})([0-9a-z]{7})$/

/** A secret as it is shown once, and the hash that is kept. */
export interface NewSecret {
  readonly text: string
  readonly hash: Buffer
}

/**
 * Makes a secret of 192 random bits. Its prefix lets scanners find it where it leaked, and its checksum lets us refuse a
 * mistyped one without looking it up.
 */
export function makeSecret(kind: SecretKind): NewSecret {
  const body = `${PREFIX[kind]}${randomBytes(RANDOM_BYTES).toString('base64url')}`
  const text = `${body}${checksum(body)}`
  return { text, hash: hashSecret(text) }
}

/** The kind of a secret with a right checksum, or undefined for anything else. */
export function secretKind(text: string): SecretKind | undefined {
  const match = SECRET.exec(text)
  if (match === null || checksum(text.slice(0, -7)) !== match[3]) return undefined
  return (Object.keys(PREFIX) as SecretKind[]).find(kind => PREFIX[kind] === match[1])
}

/** Whether a text is meant as a secret of ours, also where it is cut short or mistyped: it must be recorded nowhere. */
export function isLikeSecret(text: string): boolean {
  return Object.values(PREFIX).some(prefix => text.startsWith(prefix))
}

/** The hash a secret is kept and found by. It has too much entropy to be guessed, so a plain hash is enough. */
export function hashSecret(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}

function checksum(body: string): string {
  return crc32(body).toString(36).padStart(7, '0')
}
