import { RateLimiterMemory, type RateLimiterRes } from 'rate-limiter-flexible'
import type { GuessLimit } from './login.ts'

/** How many wrong guesses are allowed in a window. */
export interface GuessLimitOptions {
  readonly perAccount: number
  readonly perClient: number
  readonly windowSeconds: number
}

/**
 * Counts wrong guesses in this process's memory. Several processes together allow as many times more; that bounds
 * guessing all the same, and a stranger cannot make the index write.
 */
export function createGuessLimit(options: GuessLimitOptions): GuessLimit {
  const { windowSeconds: duration } = options
  // An account is held off only towards the client that guesses, or anyone could lock anyone out.
  const accounts = new RateLimiterMemory({ points: options.perAccount, duration, keyPrefix: 'account' })
  const clients = new RateLimiterMemory({ points: options.perClient, duration, keyPrefix: 'client' })
  const accountKey = (name: string, client: string): string => `${client} ${name}`
  return {
    async begin(name, client) {
      // A client that is held off already must not fill memory with names.
      const wait =
        waitOf(await clients.penalty(client), options.perClient) ||
        waitOf(await accounts.penalty(accountKey(name, client)), options.perAccount)
      return wait > 0 ? Math.ceil(wait / 1000) : undefined
    },
    async forget(name, client) {
      await Promise.all([accounts.reward(accountKey(name, client)), clients.reward(client)])
    },
    async succeeded(name, client) {
      await Promise.all([accounts.delete(accountKey(name, client)), clients.reward(client)])
    },
  }
}

function waitOf(state: RateLimiterRes, allowed: number): number {
  return state.consumedPoints > allowed ? state.msBeforeNext : 0
}
