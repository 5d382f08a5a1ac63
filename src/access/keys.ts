import { type JsonWebKey, type KeyObject, createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto'
import { thumbprint } from '../auth/key-names.ts'
import type { SigningKey } from '../auth/tokens.ts'
import type { Database, Transaction } from '../metadata/database.ts'
import * as rows from '../metadata/signing-keys.ts'

/** How the keys that sign tokens live; all in milliseconds. */
export interface KeyLifetimes {
  /** A key signs for this long before the next one takes over. */
  readonly rotationMs: number
  /** The longest that anything signed by a key is good for: it stays published for so long after its last signature. */
  readonly longestTokenMs: number
}

/** Unknown key names make us look at the rows again, at most this often. */
const RELOAD_MS = 1_000
/** Known keys are looked at again after this long, so that one that was retired on command stops being trusted. */
const STALE_MS = 30_000
/** Added to a retiring key's life: another process may go on signing with it until it looks again. */
const RETIRE_MARGIN_MS = 2 * STALE_MS

/** The keys of this registry, shared by its processes through rows. */
export class Keys {
  readonly #db: Database
  #rows: readonly rows.SigningKeyRow[] = []
  #publicKeys = new Map<string, KeyObject>()
  #signer: SigningKey | undefined
  #loadedAt = Number.NEGATIVE_INFINITY
  /** Raised by {@link refresh}: what was being read before it does not count after it. */
  #generation = 0
  #loadedGeneration = -1
  #loading: Promise<void> | undefined

  constructor(db: Database) {
    this.#db = db
  }

  /** The key to sign with now. */
  async signer(): Promise<SigningKey> {
    await this.#fresh(STALE_MS)
    if (this.#signer === undefined) throw new Error('there is no signing key: the keys were removed while running')
    return this.#signer
  }

  /** The public key of that name, if it has not retired. */
  async find(kid: string): Promise<KeyObject | undefined> {
    await this.#fresh(STALE_MS)
    if (!this.#publicKeys.has(kid)) await this.#fresh(RELOAD_MS)
    return this.#publicKeys.get(kid)
  }

  /** Whether it is known, without a look at the rows, that a key of that name has not retired. */
  isKnown(kid: string): boolean {
    return this.#isFresh(STALE_MS) && this.#publicKeys.has(kid)
  }

  /** Every public key that has signed, signs or will sign, as JWK. */
  async published(): Promise<readonly object[]> {
    await this.#fresh(STALE_MS)
    return this.#rows.map(row => ({ ...row.public_jwk, kid: row.kid, use: 'sig', alg: 'ES256' }))
  }

  /** Forgets what it knows, so that the next use looks at the rows. */
  refresh(): void {
    this.#generation += 1
    this.#loadedAt = Number.NEGATIVE_INFINITY
  }

  async #fresh(olderThanMs: number): Promise<void> {
    if (this.#isFresh(olderThanMs)) return
    const wanted = this.#generation
    do {
      this.#loading ??= this.#load().finally(() => (this.#loading = undefined))
      await this.#loading
    } while (this.#loadedGeneration < wanted)
  }

  #isFresh(olderThanMs: number): boolean {
    return performance.now() - this.#loadedAt < olderThanMs
  }

  async #load(): Promise<void> {
    const generation = this.#generation
    const found = await rows.listSigningKeys(this.#db)
    const newest = found.find(row => row.signing)
    this.#rows = found
    this.#publicKeys = new Map(found.map(row => [row.kid, createPublicKey(jwk(row.public_jwk))]))
    this.#signer = newest && { kid: newest.kid, key: createPrivateKey(jwk(newest.private_jwk)) }
    this.#loadedGeneration = generation
    if (generation === this.#generation) this.#loadedAt = performance.now()
  }
}

function jwk(key: Readonly<Record<string, unknown>>): { key: JsonWebKey; format: 'jwk' } {
  return { key: key as JsonWebKey, format: 'jwk' }
}

/**
 * Keeps two keys alive: one that signs, and one that is published already and takes over when the first has signed for
 * `rotationMs`. Any number of processes may call it at once. Answers whether anything changed.
 */
export async function rotateKeysWhenDue(db: Database, lifetimes: KeyLifetimes): Promise<boolean> {
  return await db.transaction(async tx => {
    await rows.lockSigningKeys(tx)
    const removed = await rows.deleteRetiredKeys(tx)
    const living = (await rows.listSigningKeys(tx)).filter(row => row.retires_at === null)
    const signing = living.filter(row => row.signing)
    const waiting = living.filter(row => !row.signing)
    if (signing.length === 0) {
      await addKey(tx, 0)
      if (waiting.length === 0) await addKey(tx, lifetimes.rotationMs)
      return true
    }
    for (const former of signing.slice(1))
      await rows.retireSigningKey(tx, former.kid, lifetimes.longestTokenMs + RETIRE_MARGIN_MS)
    if (waiting.length === 0) await addKey(tx, lifetimes.rotationMs)
    return removed > 0 || signing.length > 1 || waiting.length === 0
  })
}

/**
 * Rotates now: the key that waits signs from now on, and what the former ones signed is good until it expires.
 * `distrust` retires them at once instead, with every token they signed.
 */
export async function rotateKeysNow(tx: Transaction, lifetimes: KeyLifetimes, distrust: boolean): Promise<void> {
  await rows.lockSigningKeys(tx)
  const living = (await rows.listSigningKeys(tx)).filter(row => row.retires_at === null)
  const next = living.find(row => !row.signing)
  if (next === undefined) await addKey(tx, 0)
  else await rows.startSigningKey(tx, next.kid)
  for (const former of living.filter(row => row.signing)) {
    await rows.retireSigningKey(tx, former.kid, distrust ? 0 : lifetimes.longestTokenMs + RETIRE_MARGIN_MS)
  }
  await addKey(tx, lifetimes.rotationMs)
}

async function addKey(tx: Transaction, signsInMs: number): Promise<void> {
  const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const publicJwk = pair.publicKey.export({ format: 'jwk' })
  await rows.insertSigningKey(tx, {
    kid: thumbprint(publicJwk),
    privateJwk: pair.privateKey.export({ format: 'jwk' }),
    publicJwk,
    signsInMs,
  })
}
