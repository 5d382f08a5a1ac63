import type { RequestSource } from '../auth/authority.ts'
import { SharedChecks } from '../auth/login-memory.ts'
import { hashSecret } from '../auth/secrets.ts'
import { readToken } from '../auth/tokens.ts'
import { RegistryError } from '../oci/errors.ts'
import { isStorable } from '../oci/text.ts'
import type { AuditTrail } from './audit-trail.ts'
import type { Authenticator, Shown, Verdict } from './authenticator.ts'

/** A right answer of an authenticator. */
export type Proven = Extract<Verdict, { identity: unknown }>

/** Counts wrong guesses of one client and of one account; holds both off for a while after too many. */
export interface GuessLimit {
  /**
   * Counts a guess as wrong before it is judged, so that guesses made at the same time count too. Answers the seconds
   * to wait where it must not be judged at all.
   */
  begin(name: string, client: string): Promise<number | undefined>
  /** Takes back the guess that began, because it could not be judged. */
  forget(name: string, client: string): Promise<void>
  /** Takes back the guess that began, and all of this account from this client, because it was right. */
  succeeded(name: string, client: string): Promise<void>
}

const MAX_NAME_LENGTH = 255

/** Asks the authenticators in order who one is. */
export class Login {
  readonly #authenticators: readonly Authenticator[]
  readonly #guesses: GuessLimit
  readonly #audit: AuditTrail
  readonly #checks = new SharedChecks<Verdict>()

  constructor(authenticators: readonly Authenticator[], guesses: GuessLimit, audit: AuditTrail) {
    this.#authenticators = authenticators
    this.#guesses = guesses
    this.#audit = audit
  }

  /**
   * Who a name and password (or token in its place) prove to be.
   * @throws RegistryError UNAUTHORIZED with a reason a person understands; TOOMANYREQUESTS with `Retry-After`.
   */
  async prove(shown: Shown, source: RequestSource): Promise<Proven> {
    if (shown.name.length > MAX_NAME_LENGTH || !isStorable(shown.name)) throw wrong()
    const remembered = await this.#recall(shown)
    if (remembered !== undefined) return remembered
    const check = async (): Promise<Verdict> => {
      await this.#beginGuess(shown, source)
      return await this.#judge(shown, source)
    }
    // An identity token may be good for one use: no two requests share what it proved.
    const isToken = readToken(shown.password) !== undefined
    const verdict = isToken ? await check() : await this.#checks.get(shown.name, shown.password, check)
    if (verdict !== undefined && 'identity' in verdict) return verdict
    this.#audit.add({
      kind: 'login',
      outcome: 'refused',
      actor: shown.name,
      client: source.client,
      requestId: source.requestId,
      detail: { reason: verdict?.refused ?? 'unknown name or wrong password' },
    })
    throw wrong(verdict?.message)
  }

  /** What an authenticator knows to be right without judging anew: that is no guess. */
  async #recall(shown: Shown): Promise<Proven | undefined> {
    for (const { recall } of this.#authenticators) {
      const proven = await recall?.(shown)
      if (proven !== undefined) return proven
    }
    return undefined
  }

  async #beginGuess(shown: Shown, { client }: RequestSource): Promise<void> {
    const wait = await this.#guesses.begin(accountOf(shown), client)
    if (wait === undefined) return
    throw new RegistryError('TOOMANYREQUESTS', {
      message: 'too many wrong logins: wait before the next try',
      headers: { 'Retry-After': String(wait) },
    })
  }

  /** The first verdict of the chain. A guess that is right, or that could not be judged, does not count. */
  async #judge(shown: Shown, source: RequestSource): Promise<Verdict> {
    try {
      for (const authenticator of this.#authenticators) {
        const verdict = await authenticator.check(shown, source)
        if (verdict === undefined) continue
        if ('identity' in verdict) await this.#guesses.succeeded(accountOf(shown), source.client)
        return verdict
      }
      return undefined
    } catch (error) {
      await this.#guesses.forget(accountOf(shown), source.client)
      throw error
    }
  }
}

function wrong(message = 'wrong name or password'): RegistryError {
  return new RegistryError('UNAUTHORIZED', { message })
}

/** What wrong guesses are counted for. Jobs that share a name but not a token must not hold each other off. */
function accountOf({ name, password }: Shown): string {
  return readToken(password) === undefined ? name : hashSecret(password).toString('base64')
}
