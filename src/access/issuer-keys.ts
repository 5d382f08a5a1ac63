import { createPublicKey, type KeyObject } from 'node:crypto'
import type { Algorithm } from 'jsonwebtoken'
import { type IssuerFetch, IssuerFault } from './issuer-fetch.ts'

/** A public key and what it may have signed with: pinned here, never taken from a token. */
export interface IssuerKey {
  readonly key: KeyObject
  readonly algorithms: readonly Algorithm[]
}

const FRESH_MS = 600_000
/** An issuer is asked again for a key we do not know at most this often, whatever tokens strangers show. */
const RETRY_MS = 30_000
const MAX_KEYS = 100
/** Keys that an issuer gave last count for so long while it cannot be asked: it may have withdrawn one since. */
const LAST_RESORT_MS = 24 * 60 * 60_000

interface Entry {
  readonly keys: ReadonlyMap<string, IssuerKey>
  readonly readAt: number
}

/** Reads the keys of an issuer, by id. @throws IssuerFault. */
export type KeyReader = (issuer: string) => Promise<ReadonlyMap<string, IssuerKey>>

/** Told once for each time that an issuer cannot be asked while its former keys go on counting. */
export type IssuerDown = (issuer: string, fault: IssuerFault) => void

/**
 * The keys of issuers, remembered. Where an issuer is down the keys it gave last go on counting for a day. Issuers come
 * from trust rules and settings only, so there are few.
 */
export class IssuerKeys {
  readonly #read: KeyReader
  readonly #now: () => number
  readonly #known = new Map<string, Entry>()
  readonly #asked = new Map<string, { readonly at: number; readonly done: Promise<Entry> }>()
  readonly #onDown: IssuerDown
  readonly #down = new Set<string>()

  /** @param now milliseconds since 1970 */
  constructor(read: KeyReader, now: () => number, onDown: IssuerDown = () => undefined) {
    this.#read = read
    this.#now = now
    this.#onDown = onDown
  }

  /** The issuer's key of that id. @throws IssuerFault where the issuer does not answer, and gave no such
   * key within a day. */
  async find(issuer: string, kid: string): Promise<IssuerKey | undefined> {
    const known = this.#known.get(issuer)
    const key = known?.keys.get(kid)
    const ageMs = this.#now() - (known?.readAt ?? Number.NEGATIVE_INFINITY)
    if (key !== undefined && ageMs < FRESH_MS) return key
    try {
      return (await this.#ask(issuer)).keys.get(kid)
    } catch (error) {
      if (!(error instanceof IssuerFault)) throw error
      if (!this.#down.has(issuer)) this.#onDown(issuer, error)
      this.#down.add(issuer)
      if (key === undefined || ageMs >= LAST_RESORT_MS) throw error
      return key
    }
  }

  async #ask(issuer: string): Promise<Entry> {
    const last = this.#asked.get(issuer)
    if (last !== undefined && this.#now() - last.at < RETRY_MS) return await last.done
    const done = this.#read(issuer).then(keys => ({ keys, readAt: this.#now() }))
    this.#asked.set(issuer, { at: this.#now(), done })
    const entry = await done
    this.#known.set(issuer, entry)
    this.#down.delete(issuer)
    return entry
  }
}

/** Finds the keys of OpenID issuers by discovery (OpenID Connect Discovery 1.0 section 4). */
export function discovery(fetch: IssuerFetch): KeyReader {
  return async issuer => {
    const document = await fetch(`${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`)
    if (!isObject(document) || document['issuer'] !== issuer) {
      throw new IssuerFault(`${issuer} names another issuer in its discovery document`)
    }
    const { jwks_uri: address } = document
    if (typeof address !== 'string') throw new IssuerFault(`${issuer} names no jwks_uri`)
    return readKeySet(await fetch(address))
  }
}

/** Reads key sets at addresses that are known by issuer. */
export function keySetsAt(addresses: ReadonlyMap<string, string>, fetch: IssuerFetch): KeyReader {
  return async issuer => readKeySet(await fetch(addresses.get(issuer) ?? ''))
}

/** The signing keys of a JWK set (RFC 7517 section 5) by id. Keys of a kind we do not use are passed over. @throws IssuerFault. */
export function readKeySet(document: unknown): ReadonlyMap<string, IssuerKey> {
  const list = isObject(document) ? document['keys'] : undefined
  if (!Array.isArray(list) || list.length > MAX_KEYS) throw new IssuerFault('the key set is not a list of keys')
  const keys = new Map<string, IssuerKey>()
  for (const jwk of list as unknown[]) {
    if (!isObject(jwk) || typeof jwk['kid'] !== 'string' || (jwk['use'] ?? 'sig') !== 'sig') continue
    const key = readKey(jwk)
    const algorithms = key === undefined ? [] : algorithmsOf(key).filter(name => (jwk['alg'] ?? name) === name)
    if (key !== undefined && algorithms.length > 0) keys.set(jwk['kid'], { key, algorithms })
  }
  return keys
}

/** What a public key may have signed with: RFC 7518 section 3.1. Never `none`, never HMAC. */
export function algorithmsOf(key: KeyObject): readonly Algorithm[] {
  if (key.type !== 'public') return []
  const { modulusLength = 0, namedCurve = '' } = key.asymmetricKeyDetails ?? {}
  if (key.asymmetricKeyType === 'rsa') {
    return modulusLength >= 2048 ? ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'] : []
  }
  return key.asymmetricKeyType === 'ec' ? (CURVES[namedCurve] ?? []) : []
}

const CURVES: Readonly<Record<string, readonly Algorithm[]>> = {
  prime256v1: ['ES256'],
  secp384r1: ['ES384'],
  secp521r1: ['ES512'],
}

function readKey(jwk: Readonly<Record<string, unknown>>): KeyObject | undefined {
  if (jwk['kty'] !== 'RSA' && jwk['kty'] !== 'EC') return undefined
  try {
    return createPublicKey({ key: jwk, format: 'jwk' })
  } catch {
    // One malformed key must not take the others of the set with it.
    return undefined
  }
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
