import type { RequestSource } from '../auth/authority.ts'
import { SharedChecks } from '../auth/login-memory.ts'
import { networkOf } from '../auth/network.ts'
import { isBusy } from '../auth/passwords.ts'
import { isLikeSecret } from '../auth/secrets.ts'
import { readToken } from '../auth/tokens.ts'
import { RegistryError } from '../oci/errors.ts'
import { isStorable } from '../oci/text.ts'
import type { AuditTrail } from './audit-trail.ts'
import type { Authenticator, Shown, Verdict } from './authenticator.ts'
import { type Guess, type GuessLimit, loginGuess } from './guess-limit.ts'

/** A right answer of an authenticator. */
export type Proven = Extract<Verdict, { identity: unknown }>

const MAX_NAME_LENGTH = 255

/** Asks the authenticators in order who one is. */
export class Login {
  readonly #authenticators: readonly Authenticator[]
  readonly #guesses: GuessLimit
  readonly #audit: AuditTrail
  readonly #guessOf: (shown: Shown, client: string) => Guess
  /** Logins that wait for the same, by client: they are one guess. */
  readonly #checks = new SharedChecks<Verdict>()
  /** Whatever client they come from, what is the same is judged once. */
  readonly #judgements = new SharedChecks<Verdict>()

  constructor(
    authenticators: readonly Authenticator[],
    guesses: GuessLimit,
    audit: AuditTrail,
    guessOf: (shown: Shown, client: string) => Guess = loginGuess,
  ) {
    this.#authenticators = authenticators
    this.#guesses = guesses
    this.#audit = audit
    this.#guessOf = guessOf
  }

  /**
   * Who a name and password (or token in its place) prove to be.
   * @throws RegistryError UNAUTHORIZED with a reason a person understands; TOOMANYREQUESTS and UNAVAILABLE with
   * `Retry-After`.
   */
  async prove(shown: Shown, source: RequestSource): Promise<Proven> {
    if (shown.name.length > MAX_NAME_LENGTH || !isStorable(shown.name)) throw wrong()
    const verdict = await this.#verdict(shown, source)
    if (verdict !== undefined && 'identity' in verdict) return verdict
    this.#audit.add({
      kind: 'login',
      outcome: 'refused',
      actor: isToken(shown.name) ? 'a token in place of a name' : shown.name,
      client: source.client,
      requestId: source.requestId,
      detail: { reason: verdict?.refused ?? 'unknown name or wrong password' },
    })
    throw wrong(verdict?.message)
  }

  async #verdict(shown: Shown, source: RequestSource): Promise<Verdict> {
    const { name, password } = shown
    const guess = this.#guessOf(shown, source.client)
    const judgedAsGuess = async (judge: () => Promise<Verdict>): Promise<Verdict> =>
      await this.#guesses.judge(guess, judge, verdict => verdict !== undefined && 'identity' in verdict)
    // An identity token may be good for one use: no two requests share what it proved.
    if (guess.kind === 'secret') {
      return await judgedAsGuess(() => this.#judge(shown, source))
    }
    // Before anything is recalled: or who is held off could go on guessing a password that its owner has just shown.
    this.#guesses.refuseHeldOff(guess)
    const remembered = await this.#recall(shown)
    if (remembered !== undefined) return remembered
    return await this.#checks.get([networkOf(source.client), name], password, () =>
      judgedAsGuess(() => this.#judgeOnce(shown, source)),
    )
  }

  /** What an authenticator knows to be right without judging anew: that is no guess. */
  async #recall(shown: Shown): Promise<Proven | undefined> {
    for (const { recall } of this.#authenticators) {
      const proven = await recall?.(shown)
      if (proven !== undefined) return proven
    }
    return undefined
  }

  /** Shares the judgement of the same shown from elsewhere, but not that there was no room for whoever asked first. */
  async #judgeOnce(shown: Shown, source: RequestSource): Promise<Verdict> {
    let isOwn = false
    try {
      return await this.#judgements.get([shown.name], shown.password, () => {
        isOwn = true
        return this.#judge(shown, source)
      })
    } catch (error) {
      if (isOwn || !isBusy(error)) throw error
      return await this.#judge(shown, source)
    }
  }

  /** The first verdict of the chain. */
  async #judge(shown: Shown, source: RequestSource): Promise<Verdict> {
    for (const authenticator of this.#authenticators) {
      const verdict = await authenticator.check(shown, source)
      if (verdict !== undefined) return verdict
    }
    return undefined
  }
}

/** Some show a token as the name, as GitHub takes it. */
function isToken(name: string): boolean {
  return isLikeSecret(name) || readToken(name) !== undefined
}

function wrong(message = 'wrong name or password'): RegistryError {
  return new RegistryError('UNAUTHORIZED', { message })
}
