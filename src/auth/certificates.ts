import { type KeyObject, X509Certificate } from 'node:crypto'
import { TokenRefused } from './tokens.ts'

const PEM = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g
/** The signer's certificate and what leads from it to a trusted one. */
const MAX_CHAIN = 5
const MAX_CERTIFICATE_LENGTH = 8_192

/** The certificates of a PEM file, which may hold other things besides. @throws the system's error for a malformed one. */
export function readBundle(pem: string): readonly X509Certificate[] {
  return [...pem.matchAll(PEM)].map(([text]) => new X509Certificate(text))
}

/**
 * The public key of a token's signer by the chain in its `x5c` (RFC 7515 section 4.1.6: the signer's first, then
 * each the issuer of the one before): one of `roots`, or issued by one of them, directly or through the others, all in time. As in Distribution no
 * key usage is asked for, and revocation lists are not looked at.
 * @param now milliseconds since 1970
 * @throws TokenRefused
 */
export function certifiedKey(x5c: unknown, roots: readonly X509Certificate[], now: number): KeyObject {
  if (!Array.isArray(x5c) || x5c.length > MAX_CHAIN) throw new TokenRefused('its certificates (x5c) cannot be read')
  const chain = (x5c as unknown[]).map(readCertificate)
  const [leaf] = chain
  if (leaf === undefined) throw new TokenRefused('its certificates (x5c) cannot be read')
  if (!isTrusted(chain, roots, now)) {
    throw new TokenRefused('its certificate (x5c) does not come from one of rootCertBundle, or is not in time')
  }
  return leaf.publicKey
}

function readCertificate(text: unknown): X509Certificate {
  if (typeof text === 'string' && text.length <= MAX_CERTIFICATE_LENGTH && /^[A-Za-z0-9+/]+={0,2}$/.test(text)) {
    try {
      return new X509Certificate(Buffer.from(text, 'base64'))
    } catch (cause) {
      throw new TokenRefused('its certificates (x5c) cannot be read', { cause })
    }
  }
  throw new TokenRefused('its certificates (x5c) cannot be read')
}

/** Follows the chain in its order; each certificate is looked at once, whatever a stranger puts into it. */
function isTrusted(chain: readonly X509Certificate[], roots: readonly X509Certificate[], now: number): boolean {
  for (const [index, certificate] of chain.entries()) {
    if (!isInTime(certificate, now)) return false
    if (roots.some(root => root.raw.equals(certificate.raw))) return true
    if (roots.some(root => isInTime(root, now) && isIssuedBy(certificate, root))) return true
    const next = chain[index + 1]
    if (next === undefined || !isIssuedBy(certificate, next)) return false
  }
  return false
}

function isInTime(certificate: X509Certificate, now: number): boolean {
  return Date.parse(certificate.validFrom) <= now && now <= Date.parse(certificate.validTo)
}

function isIssuedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  return issuer.ca && certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey)
}
