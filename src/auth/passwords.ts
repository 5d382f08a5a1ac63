import { type ScryptOptions, randomBytes, scrypt, timingSafeEqual } from 'node:crypto'
import bcrypt from 'bcrypt'
import { RegistryError } from '../oci/errors.ts'
import { Turns, TurnsTaken } from './turns.ts'

// OWASP's parameters for interactive logins: 32 MiB of memory a hash.
const COST = { N: 2 ** 15, r: 8, p: 1, maxmem: 64 * 2 ** 20 } as const
/**
 * Hashing takes one of the four threads that files are read on as well: strangers who guess passwords must not hold up
 * pulls, nor take more memory than this many hashes.
 */
const AT_ONCE = 2
/** So many take some ten seconds on a small machine; clients wait little longer for a token. */
const MAX_WAITING = 256
const BUSY_RETRY_SECONDS = 5
const hashing = new Turns(AT_ONCE, MAX_WAITING)
const KEY_BYTES = 32
const SALT_BYTES = 16
const MAX_PASSWORD_BYTES = 1_024

/** The least a password chosen by a person has, in characters: NIST SP 800-63B section 3.1.1. */
export const MIN_PASSWORD_LENGTH = 12

/** What is wrong with a password somebody chose, or undefined. */
export function passwordFault(password: string): string | undefined {
  if (password.length < MIN_PASSWORD_LENGTH) return `a password has at least ${MIN_PASSWORD_LENGTH} characters`
  if (Buffer.byteLength(password) > MAX_PASSWORD_BYTES) return `a password has at most ${MAX_PASSWORD_BYTES} bytes`
  return undefined
}

/** A password nobody has to think of: 24 characters, 142 bits. */
export function generatePassword(): string {
  const alphabet = 'ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789'
  const characters: string[] = []
  while (characters.length < 24) {
    // Bytes that would favour the first characters are thrown away.
    for (const byte of randomBytes(32)) {
      if (byte < alphabet.length * Math.floor(256 / alphabet.length)) {
        characters.push(alphabet[byte % alphabet.length] ?? '')
      }
    }
  }
  return characters.slice(0, 24).join('')
}

/**
 * Hashes a password with its own salt, off the event loop: `scrypt$N$r$p$salt$key`, base64url.
 * @param party who asks, for fair turns
 * @throws RegistryError UNAVAILABLE with `Retry-After` where too many wait.
 */
export async function hashPassword(password: string, party = ''): Promise<string> {
  const salt = randomBytes(SALT_BYTES)
  return format(salt, await derive(password, salt, COST, party))
}

/** A hash of no password, which costs as much to compare with as those of {@link hashPassword}. */
export function decoyHash(): string {
  return format(randomBytes(SALT_BYTES), randomBytes(KEY_BYTES))
}

function format(salt: Buffer, key: Buffer): string {
  return ['scrypt', COST.N, COST.r, COST.p, salt.toString('base64url'), key.toString('base64url')].join('$')
}

/**
 * Whether the password is the one that was hashed, by scrypt in our format or by bcrypt as htpasswd files have it; in
 * constant time, off the event loop.
 * @param party who asks, for fair turns
 * @param decoys hashes of no password that a wrong one is compared with as well, so that it costs as much as another
 * @throws RegistryError UNAVAILABLE with `Retry-After` where too many wait.
 */
export async function verifyPassword(
  password: string,
  hash: string,
  party = '',
  decoys: readonly string[] = [],
): Promise<boolean> {
  if (Buffer.byteLength(password) > MAX_PASSWORD_BYTES) return false
  if (hash.startsWith('$2')) return await verifyBcrypt(password, [hash, ...decoys], party)
  const [kind, N, r, p, salt, key] = hash.split('$')
  if (kind !== 'scrypt' || salt === undefined || key === undefined) return false
  const expected = Buffer.from(key, 'base64url')
  const cost = { N: Number(N), r: Number(r), p: Number(p), maxmem: COST.maxmem }
  const actual = await derive(password, Buffer.from(salt, 'base64url'), cost, party)
  return actual.byteLength === expected.byteLength && timingSafeEqual(actual, expected)
}

/** Whether an error says that too many passwords wait, which is nothing of the one that was shown. */
export function isBusy(error: unknown): boolean {
  return error instanceof RegistryError && error.cause instanceof TurnsTaken
}

async function inTurn<T>(party: string, work: () => Promise<T>): Promise<T> {
  try {
    return await hashing.take(party, work)
  } catch (cause) {
    if (!(cause instanceof TurnsTaken)) throw cause
    throw new RegistryError('UNAVAILABLE', {
      message: 'too many logins wait to be judged: try again',
      headers: { 'Retry-After': String(BUSY_RETRY_SECONDS) },
      cause,
    })
  }
}

/** Whether the password is that of one of these, in one turn: else time told of a busy registry how many there are. */
async function verifyBcrypt(password: string, hashes: readonly string[], party: string): Promise<boolean> {
  return await inTurn(party, async () => {
    for (const hash of hashes) {
      // `y` is what PHP and Apache call the algorithm that everybody else calls `b`.
      if (await bcrypt.compare(password, hash.replace(/^\$2y\$/, '$2b$'))) return true
    }
    return false
  })
}

async function derive(password: string, salt: Buffer, cost: ScryptOptions, party: string): Promise<Buffer> {
  return await inTurn(party, async () => {
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>()
    scrypt(password.normalize('NFKC'), salt, KEY_BYTES, cost, (error, key) => {
      if (error === null) resolve(key)
      else reject(error)
    })
    return await promise
  })
}
