import { setTimeout as delay } from 'node:timers/promises'
import { DatabaseUnavailable, type Row, type Transaction, sqlState } from './database.ts'

const ATTEMPTS = 5
const BACKOFF_MS = 10

/**
 * Runs `attempt` again where it lost a race against another transaction (40001, 40P01).
 * @throws DatabaseUnavailable where it lost every time; what else `attempt` throws as it is.
 */
export async function retryLostRaces<T>(attempt: () => Promise<T>): Promise<T> {
  for (let count = 1; ; count++) {
    try {
      return await attempt()
    } catch (error) {
      const state = sqlState(error)
      if (state !== '40001' && state !== '40P01') throw error
      if (count === ATTEMPTS) throw new DatabaseUnavailable('the transaction lost every race', { cause: error })
      await delay(Math.random() * BACKOFF_MS * 2 ** count)
    }
  }
}

/** What runs the statements of one open transaction. */
export interface Session {
  query(text: string, values?: readonly unknown[]): Promise<readonly object[]>
  script(text: string): Promise<void>
  /** Called when a statement starts and when it ended. */
  busy?(isBusy: boolean): void
}

/** One attempt's {@link Transaction}: it keeps the first error, and stops working once its attempt is over. */
export class OpenTransaction {
  readonly tx: Transaction
  #failure: unknown
  #isOver = false

  constructor(session: Session) {
    const guarded = async <T>(statement: () => Promise<T>): Promise<T> => {
      if (this.#isOver) throw new Error('this transaction is over')
      session.busy?.(true)
      try {
        return await statement()
      } catch (error) {
        this.#failure ??= error
        throw error
      } finally {
        session.busy?.(false)
      }
    }
    const methods: Pick<Transaction, 'query' | 'script'> = {
      query: <R extends object = Row>(text: string, values?: readonly unknown[]) =>
        guarded(async () => (await session.query(text, values)) as readonly R[]),
      script: text => guarded(() => session.script(text)),
    }
    this.tx = methods as Transaction
  }

  /** Refuses every later statement. */
  end(): void {
    this.#isOver = true
  }

  /** The first statement's error, where one failed. */
  get failure(): unknown {
    return this.#failure
  }
}
