import jwt from 'jsonwebtoken'
import { certifiedKey } from '../auth/certificates.ts'
import type { AccessEntry } from '../auth/scope.ts'
import { TokenRefused, readToken } from '../auth/tokens.ts'
import { RegistryError } from '../oci/errors.ts'
import { storable } from '../oci/text.ts'
import type { ForeignTokens } from './bearer-tokens.ts'
import { IssuerFault } from './issuer-fetch.ts'
import { type IssuerKey, type IssuerKeys, algorithmsOf } from './issuer-keys.ts'
import type { TrustedKeys } from './trusted-keys.ts'

/** An issuer of access tokens besides ourselves: a token server as Distribution knows it. */
export interface ForeignIssuer {
  /** Exactly what its tokens say in `iss`. */
  readonly issuer: string
  /** What they must be made for. */
  readonly audience: string
  /** What its files say now. */
  readonly trusted: () => TrustedKeys
  /** Whether it also gives keys at an address, by which the key sets know it under its name. */
  readonly hasKeySet: boolean
}

/** As in Distribution: RFC 7519 section 4.1.4 allows for a small leeway. */
const LEEWAY_SECONDS = 60
const ISSUER_RETRY_SECONDS = 10
const MAX_NAME_LENGTH = 255
const MAX_ENTRIES = 1_000
/** What Distribution's tokens allow. `admin` is ours, and no token server can give it. */
const ACTIONS = new Set(['pull', 'push', 'delete', '*'])

type Claims = Readonly<Record<string, unknown>>

/**
 * Verifies tokens of other issuers the way Distribution does (docs/spec/auth/jwt): the key by the certificates in `x5c`, or
 * by its name; algorithms by the key and never by the token; issuer, audience and times.
 */
export function foreignTokens(issuers: readonly ForeignIssuer[], keySets: IssuerKeys): ForeignTokens {
  const byName = new Map(issuers.map(issuer => [issuer.issuer, issuer]))
  return {
    async verify(token, now) {
      const read = readToken(token)
      const name = read?.claims['iss']
      const issuer = typeof name === 'string' ? byName.get(name) : undefined
      if (read === undefined || issuer === undefined) return undefined
      const claims = verified(token, await keyOf(issuer, keySets, read.header, now), issuer, now)
      const subject = typeof claims['sub'] === 'string' ? claims['sub'] : ''
      const identity = { kind: 'foreign', name: storable(subject.slice(0, MAX_NAME_LENGTH)) } as const
      return { identity, access: accessOf(claims['access']) }
    },
  }
}

/** @throws TokenRefused where the token names no key that is trusted; RegistryError UNAVAILABLE. */
async function keyOf(issuer: ForeignIssuer, keySets: IssuerKeys, header: Claims, now: number): Promise<IssuerKey> {
  const { keys, unnamed, roots } = issuer.trusted()
  const { jwk } = header
  // A key that a token brings along counts only by its certificates, or by its name.
  const named = typeof jwk === 'object' && jwk !== null ? (jwk as Claims) : header
  const chain = header['x5c'] ?? named['x5c']
  if (chain !== undefined && roots.length > 0) {
    const key = certifiedKey(chain, roots, now)
    return { key, algorithms: algorithmsOf(key) }
  }
  const kid = named['kid']
  const known = typeof kid === 'string' ? keys.get(kid) : undefined
  const asks = known === undefined && typeof kid === 'string' && issuer.hasKeySet
  const key = known ?? (asks ? await publishedKey(issuer, keySets, kid) : undefined) ?? unnamed
  if (key !== undefined) return key
  throw new TokenRefused(typeof kid === 'string' ? 'it names a key that is not known here' : 'it names no key')
}

async function publishedKey(issuer: ForeignIssuer, keySets: IssuerKeys, kid: string): Promise<IssuerKey | undefined> {
  try {
    return await keySets.find(issuer.issuer, kid)
  } catch (cause) {
    if (!(cause instanceof IssuerFault)) throw cause
    throw new RegistryError('UNAVAILABLE', {
      message: 'the issuer of the token cannot be asked for its keys',
      headers: { 'Retry-After': String(ISSUER_RETRY_SECONDS) },
      cause,
    })
  }
}

/** @throws TokenRefused, with words that may be shown. */
function verified(
  token: string,
  { key, algorithms }: IssuerKey,
  { issuer, audience }: ForeignIssuer,
  now: number,
): Claims {
  if (algorithms.length === 0) throw new TokenRefused('its key is of a kind that cannot be used')
  try {
    const claims = jwt.verify(token, key, {
      algorithms: [...algorithms],
      issuer,
      audience,
      clockTimestamp: Math.floor(now / 1000),
      clockTolerance: LEEWAY_SECONDS,
    })
    if (typeof claims === 'object' && typeof claims.exp === 'number') return claims
  } catch (cause) {
    throw new TokenRefused(reasonOf(cause, audience), { cause })
  }
  throw new TokenRefused('it has no expiry')
}

function reasonOf(error: unknown, audience: string): string {
  if (error instanceof jwt.TokenExpiredError) return 'it has expired'
  if (error instanceof jwt.NotBeforeError) return 'it is not good yet'
  const isAudience = error instanceof Error && error.message.startsWith('jwt audience invalid')
  return isAudience ? `it is not made for ${audience}` : 'its signature is not right'
}

/** What Distribution reads from `access`; anything else allows nothing. Which repository is meant, by its id, is ours to say. */
function accessOf(access: unknown): AccessEntry[] {
  const list = Array.isArray(access) ? (access as unknown[]).slice(0, MAX_ENTRIES) : []
  return list.flatMap(entry => {
    const { type, name, actions } = (typeof entry === 'object' && entry !== null ? entry : {}) as Claims
    if (typeof type !== 'string' || typeof name !== 'string' || !Array.isArray(actions)) return []
    const known = (actions as unknown[]).filter(action => typeof action === 'string' && ACTIONS.has(action)) as string[]
    return known.length === 0 ? [] : [{ type, name, actions: known }]
  })
}
