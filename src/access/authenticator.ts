import type { Proof, RequestSource } from '../auth/authority.ts'

/** A name and what was shown with it: a password, or a token in its place. */
export interface Shown {
  readonly name: string
  readonly password: string
}

/** What an authenticator makes of what was shown. */
export type Verdict =
  | (Proof & { readonly tokenId?: number })
  /** It is mine to judge, and wrong; the reason is for the audit, `message` for the person who tries. */
  | { readonly refused: string; readonly message?: string }
  /** Not mine: the next one in the chain is asked. */
  | undefined

/**
 * One way of proving who one is. Authenticators are asked in order until one gives a verdict; where none does, the
 * credentials are wrong.
 */
export interface Authenticator {
  readonly name: string
  check(shown: Shown, source: RequestSource): Promise<Verdict>
  /** The answer where it is known to be right without the cost of judging it; for ways that cost much. */
  readonly recall?: (shown: Shown) => Promise<Extract<Verdict, { identity: unknown }> | undefined>
}
