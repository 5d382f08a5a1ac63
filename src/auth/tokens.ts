import type { KeyObject } from 'node:crypto'
import jwt from 'jsonwebtoken'
import type { Identity, PatternActions, Provenance } from './identity.ts'
import type { AccessEntry } from './scope.ts'

/** The one algorithm our own tokens are signed with: RFC 7518 section 3.4. */
export const ALGORITHM = 'ES256'
/** Clocks of processes that sign and verify may differ by this much. */
const CLOCK_TOLERANCE_SECONDS = 5
/** Longer tokens than this are refused unread. */
export const MAX_TOKEN_LENGTH = 32_768

/** A private key with its name. */
export interface SigningKey {
  readonly kid: string
  readonly key: KeyObject
}

/** Who signs, for whom, and how long it holds. Times in seconds since 1970. */
export interface TokenFrame {
  readonly issuer: string
  readonly audience: string
  readonly issuedAt: number
  readonly expiresAt: number
}

/** What an access token says: the claims of Distribution's tokens, and who exactly was meant. */
export interface TokenClaims {
  readonly identity: Identity
  readonly access: readonly AccessEntry[]
  /** Unique to this token. */
  readonly id: string
}

interface Payload {
  readonly sub: string
  readonly access: readonly AccessEntry[]
  readonly kind: Identity['kind']
  readonly pid?: number
  readonly epoch?: number
  readonly secret_id?: number
  /** Seconds since 1970. */
  readonly ends_at?: number
  readonly scopes?: readonly PatternActions[]
  readonly provenance?: Provenance
}

/** Signs an access token. */
export function signToken(signer: SigningKey, frame: TokenFrame, claims: TokenClaims): string {
  const { identity } = claims
  const payload: Payload = {
    sub: identity.name,
    access: claims.access,
    kind: identity.kind,
    ...(identity.principalId === undefined ? {} : { pid: identity.principalId }),
    ...(identity.epoch === undefined ? {} : { epoch: identity.epoch }),
    ...(identity.secretId === undefined ? {} : { secret_id: identity.secretId }),
    ...(identity.endsAt === undefined ? {} : { ends_at: secondsOf(identity.endsAt) }),
    ...(identity.scopes === undefined ? {} : { scopes: identity.scopes }),
    ...(identity.provenance === undefined ? {} : { provenance: identity.provenance }),
  }
  return sign(signer, frame, { ...payload, jti: claims.id })
}

/** Whole seconds since 1970. */
export function secondsOf(time: Date): number {
  return Math.floor(time.getTime() / 1000)
}

/** A token that cannot be trusted. `message` is for the log, not for the client. */
export class TokenRefused extends Error {
  override readonly name = 'TokenRefused'
}

/**
 * The claims of one of our own access tokens. `findKey` knows every key that may still have signed a living token.
 * @throws TokenRefused whatever is wrong with it.
 */
export async function verifyToken(
  token: string,
  expected: { readonly issuer: string; readonly audience: string; readonly now: number },
  findKey: (kid: string) => Promise<KeyObject | undefined>,
): Promise<TokenClaims & { readonly expiresAt: number }> {
  const payload = (await verify(token, expected, findKey)) as Payload & { readonly jti: string; readonly exp: number }
  const { sub, kind, pid, epoch, secret_id: secretId, ends_at: endsAt, scopes, provenance } = payload
  return {
    identity: {
      kind,
      name: sub,
      ...(pid === undefined ? {} : { principalId: pid }),
      ...(epoch === undefined ? {} : { epoch }),
      ...(secretId === undefined ? {} : { secretId }),
      ...(endsAt === undefined ? {} : { endsAt: new Date(endsAt * 1000) }),
      ...(scopes === undefined ? {} : { scopes }),
      ...(provenance === undefined ? {} : { provenance }),
    },
    access: payload.access,
    id: payload.jti,
    expiresAt: payload.exp,
  }
}

/** The right to go on with one upload session, which outlives the token that opened it, though not what that came of. */
export interface UploadCapability {
  readonly upload: string
  readonly repository: string
  readonly principalId?: number
  readonly epoch?: number
  readonly secretId?: number
  /** When what began the upload ends, in seconds since 1970; absent where it does not end by itself. */
  readonly endsAt?: number
}

/** The audience of capabilities: an access token is never one, and the other way round. */
const capabilityAudience = (audience: string): string => `${audience}/upload`

/** Signs an upload's capability, for its Location. */
export function signCapability(signer: SigningKey, frame: TokenFrame, capability: UploadCapability): string {
  return sign(signer, { ...frame, audience: capabilityAudience(frame.audience) }, { ...capability })
}

/** What a capability allows. @throws TokenRefused whatever is wrong with it. */
export async function verifyCapability(
  token: string,
  expected: { readonly issuer: string; readonly audience: string; readonly now: number },
  findKey: (kid: string) => Promise<KeyObject | undefined>,
): Promise<UploadCapability & { readonly expiresAt: number }> {
  const audience = capabilityAudience(expected.audience)
  const claims = await verify(token, { ...expected, audience }, findKey)
  const { upload, repository, principalId, epoch, secretId, endsAt, exp } = claims as UploadCapability & {
    readonly exp: number
  }
  return {
    upload,
    repository,
    ...(principalId === undefined ? {} : { principalId }),
    ...(epoch === undefined ? {} : { epoch }),
    ...(secretId === undefined ? {} : { secretId }),
    ...(endsAt === undefined ? {} : { endsAt }),
    expiresAt: exp,
  }
}

function sign(signer: SigningKey, frame: TokenFrame, payload: object): string {
  const times = { iat: frame.issuedAt, nbf: frame.issuedAt - CLOCK_TOLERANCE_SECONDS, exp: frame.expiresAt }
  return jwt.sign({ ...payload, iss: frame.issuer, aud: frame.audience, ...times }, signer.key, {
    algorithm: ALGORITHM,
    keyid: signer.kid,
  })
}

async function verify(
  token: string,
  expected: { readonly issuer: string; readonly audience: string; readonly now: number },
  findKey: (kid: string) => Promise<KeyObject | undefined>,
): Promise<unknown> {
  if (token.length > MAX_TOKEN_LENGTH) throw new TokenRefused('it is too long')
  const kid = readHeader(token)?.kid
  if (typeof kid !== 'string' || !/^[A-Za-z0-9_-]{1,100}$/.test(kid)) throw new TokenRefused('it names no key')
  const key = await findKey(kid)
  if (key === undefined) throw new TokenRefused('it names a key that is not ours')
  try {
    return jwt.verify(token, key, {
      algorithms: [ALGORITHM],
      issuer: expected.issuer,
      audience: expected.audience,
      clockTimestamp: expected.now,
      clockTolerance: CLOCK_TOLERANCE_SECONDS,
    })
  } catch (error) {
    throw new TokenRefused(error instanceof Error ? error.message : 'it cannot be verified', { cause: error })
  }
}

/** A JWT's header and unverified claims, or undefined where it is none. Only to learn which key or issuer to ask. */
export function readToken(
  token: string,
):
  | { readonly header: Readonly<Record<string, unknown>>; readonly claims: Readonly<Record<string, unknown>> }
  | undefined {
  const parts = token.split('.')
  if (token.length > MAX_TOKEN_LENGTH || parts.length !== 3) return undefined
  const [header, claims] = parts.slice(0, 2).map(readPart)
  return header === undefined || claims === undefined ? undefined : { header, claims }
}

function readHeader(token: string): Readonly<Record<string, unknown>> | undefined {
  return readToken(token)?.header
}

function readPart(part: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(part, 'base64url').toString('utf8'))
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : undefined
  } catch {
    return undefined
  }
}
