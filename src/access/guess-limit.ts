import { LRUCache } from 'lru-cache'
import { networkOf } from '../auth/network.ts'
import { hashSecret, secretKind } from '../auth/secrets.ts'
import { readToken } from '../auth/tokens.ts'
import { RegistryError } from '../oci/errors.ts'

/** How many wrong guesses are allowed in a window. */
export interface GuessLimitOptions {
  readonly perAccount: number
  readonly perClient: number
  readonly windowSeconds: number
  /** Milliseconds of a clock that only goes forward. */
  readonly now?: () => number
}

/**
 * Something shown that may be right. A `secret` is one of ours by its form and checksum, or a signed token: nobody can
 * guess one, so wrong ones are limited only for what they cost, and apart from everything that can be guessed.
 */
export interface Guess {
  readonly kind: 'password' | 'secret'
  /** What it is right or wrong for: a name, or where that means nothing, the hash of what was shown. */
  readonly account: string
  /** The client's address; it counts by {@link networkOf}. */
  readonly client: string
}

/**
 * The guess that a login makes. The name beside a token means nothing, and jobs that share a name but not a token must not
 * hold each other off.
 */
export function loginGuess(shown: { readonly name: string; readonly password: string }, client: string): Guess {
  const { name, password } = shown
  const kind = secretKind(password)
  const isSecret = kind === 'pat' || kind === 'robot' || readToken(password) !== undefined
  return isSecret
    ? { kind: 'secret', account: digestOf(password), client }
    : { kind: 'password', account: name, client }
}

/** The guess that is a password whatever it looks like, because nothing else would be right. */
export function passwordGuess({ name: account }: { readonly name: string }, client: string): Guess {
  return { kind: 'password', account, client }
}

/** The guess that a refresh token makes. What is none by its form counts like any other wrong thing. */
export function refreshGuess(refreshToken: string, client: string): Guess {
  const kind = secretKind(refreshToken) === 'refresh' ? 'secret' : 'password'
  return { kind, account: digestOf(refreshToken), client }
}

function digestOf(secret: string): string {
  return hashSecret(secret).toString('base64')
}

/** More would let a stranger fill memory; the oldest goes first. */
const MAX_WINDOWS = 100_000
const MAX_RIGHT_SECRETS = 10_000
const RIGHT_SECRET_MS = 24 * 60 * 60_000

/**
 * Counts wrong guesses in this process's memory. Several processes together allow as many times more; that bounds
 * guessing all the same, and a stranger cannot make the index write.
 */
export class GuessLimit {
  readonly #options: GuessLimitOptions
  readonly #windows: Windows
  /** A secret that was right is judged whatever was counted: no neighbour behind the same address can hold it off. */
  readonly #rightSecrets = new LRUCache<string, true>({ max: MAX_RIGHT_SECRETS, ttl: RIGHT_SECRET_MS })

  constructor(options: GuessLimitOptions) {
    this.#options = options
    this.#windows = new Windows(options.windowSeconds * 1000, options.now ?? (() => performance.now()))
  }

  /** @throws RegistryError TOOMANYREQUESTS with `Retry-After` where such a guess must not be judged now. */
  refuseHeldOff(guess: Guess): void {
    this.#limits(guess)
  }

  /**
   * Judges a guess. It counts as wrong from the start, so that guesses made at the same time count too, and no more once
   * it was right or could not be judged; a right one takes back all of this account from this client.
   * @throws RegistryError TOOMANYREQUESTS with `Retry-After` where it must not be judged; whatever `judge` throws.
   */
  async judge<T>(guess: Guess, judge: () => Promise<T>, isRight: (verdict: T) => boolean): Promise<T> {
    const isKnown = guess.kind === 'secret' && this.#rightSecrets.has(guess.account)
    const counted = isKnown ? [] : this.#limits(guess).map(({ key }) => this.#windows.open(key))
    for (const window of counted) window.count += 1
    let verdict
    try {
      verdict = await judge()
    } catch (error) {
      for (const window of counted) window.count = Math.max(0, window.count - 1)
      throw error
    }
    if (isRight(verdict)) {
      const [account, client] = counted
      if (account !== undefined) account.count = 0
      if (client !== undefined) client.count -= 1
      if (guess.kind === 'secret') this.#rightSecrets.set(guess.account, true)
    } else if (isKnown) {
      this.#rightSecrets.delete(guess.account)
    }
    return verdict
  }

  /** The limits a guess is under, the account's first. What is held off is not counted any more. */
  #limits({ kind, account, client }: Guess): readonly { readonly key: string }[] {
    const { perAccount, perClient } = this.#options
    const network = networkOf(client)
    // An account is held off only towards the client that guesses, or anyone could lock anyone out.
    const limits = [
      { key: [kind, network, account].join('\0'), allowed: perAccount },
      { key: [kind, network].join('\0'), allowed: perClient },
    ]
    const waitMs = Math.max(...limits.map(({ key, allowed }) => this.#windows.waitMs(key, allowed)))
    if (waitMs === 0) return limits
    throw new RegistryError('TOOMANYREQUESTS', {
      message: 'too many wrong logins: wait before the next try',
      headers: { 'Retry-After': String(Math.ceil(waitMs / 1000)) },
    })
  }
}

interface Window {
  count: number
  readonly endsAt: number
}

/** Counts by key, each from its first count for a fixed time. */
class Windows {
  readonly #lengthMs: number
  readonly #now: () => number
  readonly #windows = new LRUCache<string, Window>({ max: MAX_WINDOWS })

  constructor(lengthMs: number, now: () => number) {
    this.#lengthMs = lengthMs
    this.#now = now
  }

  /** The window that counts for `key` now. */
  open(key: string): Window {
    const now = this.#now()
    const known = this.#windows.get(key)
    if (known !== undefined && known.endsAt > now) return known
    const window = { count: 0, endsAt: now + this.#lengthMs }
    this.#windows.set(key, window)
    return window
  }

  /** How long the window of `key` still lasts where it counted `allowed` or more; else 0. Makes none. */
  waitMs(key: string, allowed: number): number {
    const window = this.#windows.get(key)
    return window === undefined || window.count < allowed ? 0 : Math.max(0, window.endsAt - this.#now())
  }
}
