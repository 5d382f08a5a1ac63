import { LRUCache } from 'lru-cache'
import type { Access } from '../auth/authority.ts'
import type { Identity } from '../auth/identity.ts'
import type { AccessEntry } from '../auth/scope.ts'
import * as tokens from '../auth/tokens.ts'
import { RegistryError } from '../oci/errors.ts'
import type { Keys } from './keys.ts'
import type { PrincipalStates } from './principal-states.ts'
import { tokenAccess } from './request-access.ts'

/** A verifier of access tokens that somebody else signs, or undefined where a token is not one of theirs. */
export interface ForeignTokens {
  /**
   * @param now milliseconds since 1970
   * @throws tokens.TokenRefused where it is theirs and wrong, in words that may be shown; RegistryError UNAVAILABLE where
   * its issuer cannot be asked.
   */
  verify(
    token: string,
    now: number,
  ): Promise<{ readonly identity: Identity; readonly access: readonly AccessEntry[] } | undefined>
}

/** What {@link BearerTokens} work with. */
export interface BearerTokensOptions {
  readonly keys: Pick<Keys, 'find' | 'isKnown'>
  readonly states: Pick<PrincipalStates, 'isCurrent' | 'recall'>
  readonly foreign: ForeignTokens
  /** What tokens call us, as audience and as issuer. */
  readonly service: string
  /** Milliseconds since 1970. */
  readonly now: () => number
}

const VERIFIED_LIMIT = 10_000
/** Of all of them together: a token may be long, and what it is for as well. */
const VERIFIED_BYTES = 32 * 1024 * 1024
/** What a verified token takes for each character of it, about: itself, and what it says. */
const BYTES_A_CHARACTER = 4
/** A look-up hashes its key, and the end of a signature tells tokens apart as well as all of it. */
const KEY_CHARACTERS = 32

interface Verified {
  readonly token: string
  readonly access: Access
  /** Seconds since 1970. */
  readonly expiresAt: number
  /** Which key of ours signed it; absent where another issuer's did. */
  readonly kid?: string
}

/**
 * What bearers of access tokens may do: of ours, or of issuers that are trusted. The signature of ours is checked once;
 * its expiry, its key and its principal each time.
 */
export class BearerTokens {
  readonly #options: BearerTokensOptions
  /** Tokens of ours whose signature was checked, by their last characters. */
  readonly #verified = new LRUCache<string, Verified>({
    max: VERIFIED_LIMIT,
    maxSize: VERIFIED_BYTES,
    sizeCalculation: ({ token }) => token.length * BYTES_A_CHARACTER,
  })

  constructor(options: BearerTokensOptions) {
    this.#options = options
  }

  /** What the bearer may do, where nothing has to be asked for it: no row is read, and no promise made. */
  recall(token: string): Access | undefined {
    const { keys, now, states } = this.#options
    const verified = this.#find(token)
    if (verified?.kid === undefined || verified.expiresAt * 1000 <= now() || !keys.isKnown(verified.kid))
      return undefined
    return states.recall(verified.access.identity) === true ? verified.access : undefined
  }

  /** What the bearer may do. @throws RegistryError UNAUTHORIZED; UNAVAILABLE where its issuer cannot be asked. */
  async access(token: string): Promise<Access> {
    const { keys, now, states } = this.#options
    const verified = this.#find(token) ?? (await this.#verify(token))
    // Its key may have been distrusted since the signature was checked.
    if (verified.kid !== undefined && (await keys.find(verified.kid)) === undefined) {
      this.#verified.delete(keyOf(token))
      throw invalidToken('the token is not valid')
    }
    const expired = verified.expiresAt * 1000 <= now()
    const revoked = !(await states.isCurrent(verified.access.identity))
    if (expired || revoked) {
      this.#verified.delete(keyOf(token))
      throw invalidToken(expired ? 'the token has expired' : 'the token was revoked')
    }
    return verified.access
  }

  #find(token: string): Verified | undefined {
    const found = this.#verified.get(keyOf(token))
    // Others may end alike: only the whole of it was verified.
    return found?.token === token ? found : undefined
  }

  async #verify(token: string): Promise<Verified> {
    const { keys, service, now } = this.#options
    const theirs = await this.#verifyForeign(token)
    if (theirs !== undefined) return theirs
    const expected = { issuer: service, audience: service, now: Math.floor(now() / 1000) }
    try {
      const { identity, access, expiresAt } = await tokens.verifyToken(token, expected, kid => keys.find(kid))
      const kid = String(tokens.readToken(token)?.header['kid'])
      const verified = { token, access: tokenAccess(identity, access, true), expiresAt, kid }
      this.#verified.set(keyOf(token), verified)
      return verified
    } catch (error) {
      if (error instanceof tokens.TokenRefused) throw invalidToken('the token is not valid', error)
      throw error
    }
  }

  /** A foreign token is verified each time it is shown: its issuer may withdraw the key. */
  async #verifyForeign(token: string): Promise<Verified | undefined> {
    const { foreign, now } = this.#options
    try {
      const theirs = await foreign.verify(token, now())
      if (theirs === undefined) return undefined
      return { token, access: tokenAccess(theirs.identity, theirs.access, true), expiresAt: Number.POSITIVE_INFINITY }
    } catch (error) {
      // Who runs the other token server has to learn what is wrong with it.
      if (error instanceof tokens.TokenRefused) throw invalidToken(`the token is not valid: ${error.message}`, error)
      throw error
    }
  }
}

function keyOf(token: string): string {
  return token.slice(-KEY_CHARACTERS)
}

function invalidToken(message: string, cause?: unknown): RegistryError {
  return new RegistryError('UNAUTHORIZED', { message, detail: { error: 'invalid_token' }, cause })
}
