import { type JsonWebKey, type KeyObject, createHash } from 'node:crypto'

const BASE32 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'
const LIBTRUST_BYTES = 30

/**
 * The names by which token servers of Distribution's kind call a public key in `kid`, where nothing else names it: its
 * thumbprint by RFC 7638 (registry:3), and the identifier of libtrust (registry:2).
 */
export function keyNames(key: KeyObject): readonly string[] {
  return [thumbprint(key.export({ format: 'jwk' })), libtrustIdOf(key)]
}

/** RFC 7638 section 3: the hash of the required members of an RSA or EC key, in their fixed order. */
export function thumbprint({ crv, e, kty, n, x, y }: JsonWebKey): string {
  const members = kty === 'RSA' ? { e, kty, n } : { crv, kty, x, y }
  return createHash('sha256').update(JSON.stringify(members)).digest('base64url')
}

/** The first 240 bits of the hash of the key in base32, in groups of four with colons between. */
function libtrustIdOf(key: KeyObject): string {
  const hash = createHash('sha256')
    .update(key.export({ format: 'der', type: 'spki' }))
    .digest()
  const bits = BigInt(`0x${hash.subarray(0, LIBTRUST_BYTES).toString('hex')}`)
  const length = (LIBTRUST_BYTES * 8) / 5
  const digits = bits.toString(32).padStart(length, '0')
  const text = digits.replaceAll(/./g, digit => BASE32.charAt(Number.parseInt(digit, 32)))
  return (text.match(/.{4}/g) ?? []).join(':')
}
