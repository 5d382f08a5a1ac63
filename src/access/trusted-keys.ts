import { type X509Certificate, createPublicKey } from 'node:crypto'
import { readBundle } from '../auth/certificates.ts'
import { keyNames } from '../auth/key-names.ts'
import { IssuerFault } from './issuer-fetch.ts'
import { type IssuerKey, algorithmsOf, readKeySet } from './issuer-keys.ts'

/** What files say an issuer of tokens may sign with. */
export interface TrustedKeys {
  /** Keys by the `kid` that tokens name them by. */
  readonly keys: ReadonlyMap<string, IssuerKey>
  /** The one key of a PEM file, which nothing names: tokens may call it anything, or not at all. */
  readonly unnamed?: IssuerKey
  /** Where chains of certificates in `x5c` have to end. */
  readonly roots: readonly X509Certificate[]
}

const PEM_KEY = /-----BEGIN ((?:RSA )?PUBLIC KEY)-----[^-]+-----END \1-----/g

/**
 * The keys of a key file: a JWK set (RFC 7517 section 5), or public keys as PEM. @throws IssuerFault where it holds none
 * that can be used.
 */
export function readKeyFile(content: string): Pick<TrustedKeys, 'keys' | 'unnamed'> {
  if (content.trimStart().startsWith('{')) {
    const keys = readKeySet(parseJson(content))
    if (keys.size === 0)
      throw new IssuerFault('holds no key with a kid that can be used (RSA from 2048 bits on, or EC)')
    return { keys }
  }
  const pems = [...content.matchAll(PEM_KEY)].map(([pem]) => pem)
  const found = pems.map(pem => trusted(createPublicKey(pem)))
  const keys = new Map(found.flatMap(key => keyNames(key.key).map(name => [name, key] as const)))
  const [only, ...more] = found
  if (only === undefined) throw new IssuerFault('holds neither a JWK set nor a public key (PEM)')
  return more.length === 0 ? { keys, unnamed: only } : { keys }
}

/**
 * The certificates of a bundle, and their keys by the names Distribution gives them. @throws IssuerFault where it holds none
 * that can be used.
 */
export function readRootBundle(content: string): Pick<TrustedKeys, 'keys' | 'roots'> {
  const roots = readBundle(content)
  if (roots.length === 0) throw new IssuerFault('holds no certificate (PEM)')
  // A root whose own key could not sign tokens may well have issued certificates that do.
  const usable = roots.map(({ publicKey: key }) => ({ key, algorithms: algorithmsOf(key) }))
  const keys = usable
    .filter(({ algorithms }) => algorithms.length > 0)
    .flatMap(key => keyNames(key.key).map(name => [name, key] as const))
  return { roots, keys: new Map(keys) }
}

function trusted(key: IssuerKey['key']): IssuerKey {
  const algorithms = algorithmsOf(key)
  if (algorithms.length > 0) return { key, algorithms }
  throw new IssuerFault('holds a key that cannot be used (RSA from 2048 bits on, or EC on P-256, P-384 or P-521)')
}

function parseJson(content: string): unknown {
  try {
    return JSON.parse(content)
  } catch (cause) {
    throw new IssuerFault('is not JSON', { cause })
  }
}
