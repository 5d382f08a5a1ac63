import { createHash } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { type Database, DatabaseUnavailable, type Row, type Transaction, sqlState } from './database.ts'

/** How to reach a Postgres server (14 or newer). */
export interface PostgresOptions {
  readonly url: string
  /** Connections at most. */
  readonly poolSize?: number
  readonly statementTimeoutMs?: number
}

const CONNECT_TIMEOUT_MS = 5_000
const ATTEMPTS = 8
const INT8 = 20

/** Server states and socket faults after which the same work may succeed later. */
const GONE = /^(?:08...|57P0[1-5]|53300|57014|55P03|25P03)$/
const SOCKET_FAULT = /ECONN|EPIPE|ETIMEDOUT|ENOENT|EAI_AGAIN|timeout|Connection terminated|not queryable/i

/** Opens a pool on a Postgres server; the first connection is made when it is first needed. */
export async function openPostgres(options: PostgresOptions): Promise<Database> {
  const statementTimeoutMs = options.statementTimeoutMs ?? 15_000
  const pool = new pg.Pool({
    connectionString: options.url,
    max: options.poolSize ?? 10,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    statement_timeout: statementTimeoutMs,
    query_timeout: statementTimeoutMs + 5_000,
    idle_in_transaction_session_timeout: statementTimeoutMs,
    keepAlive: true,
    types: { getTypeParser: parserOf },
  })
  // An idle connection that the server closed is dropped by the pool; the next query opens another.
  pool.on('error', () => undefined)
  pool.on('connect', client => client.on('error', () => undefined))
  return new Postgres(pool)
}

function parserOf(oid: number, format?: 'text' | 'binary'): (value: string) => unknown {
  if (oid === INT8) return Number
  return (format === 'binary' ? pg.types.getTypeParser(oid, 'binary') : pg.types.getTypeParser(oid, 'text')) as (
    value: string,
  ) => unknown
}

class Postgres implements Database {
  readonly driver = 'postgres'
  readonly #pool: pg.Pool

  constructor(pool: pg.Pool) {
    this.#pool = pool
  }

  async query<R extends object = Row>(text: string, values?: readonly unknown[]): Promise<readonly R[]> {
    try {
      return await run<R>(this.#pool, text, values)
    } catch (error) {
      throw translate(error)
    }
  }

  async transaction<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#attempt(work)
      } catch (error) {
        const state = sqlState(error)
        if ((state !== '40001' && state !== '40P01') || attempt === ATTEMPTS) throw translate(error)
        await delay(Math.random() * 10 * attempt)
      }
    }
  }

  async #attempt<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
    const client = await this.#pool.connect()
    let broken: Error | undefined
    try {
      await client.query('begin')
      const tx = {
        query: (text: string, values?: readonly unknown[]) => run(client, text, values),
        script: async (text: string) => {
          await client.query(text)
        },
      } as unknown as Transaction
      const outcome = await work(tx)
      await client.query('commit')
      return outcome
    } catch (error) {
      // The first error is the one that counts; a client that cannot roll back is not used again.
      await client.query('rollback').catch((fault: unknown) => {
        broken = fault instanceof Error ? fault : new Error('rollback failed')
      })
      throw error
    } finally {
      client.release(broken)
    }
  }

  async close(): Promise<void> {
    await this.#pool.end()
  }
}

const names = new Map<string, string>()

function nameOf(text: string): string {
  let name = names.get(text)
  if (name === undefined) {
    name = createHash('sha256').update(text).digest('hex').slice(0, 24)
    names.set(text, name)
  }
  return name
}

async function run<R>(
  on: pg.Pool | pg.PoolClient,
  text: string,
  values: readonly unknown[] | undefined,
): Promise<readonly R[]> {
  const result = await on.query({ name: nameOf(text), text, values: values === undefined ? [] : [...values] })
  return result.rows as R[]
}

function translate(error: unknown): unknown {
  const state = sqlState(error)
  if (state !== undefined) {
    return GONE.test(state) ? new DatabaseUnavailable('the index does not answer', { cause: error }) : error
  }
  if (!(error instanceof Error)) return error
  const code = 'code' in error ? String(error.code) : ''
  if (!SOCKET_FAULT.test(`${code} ${error.message}`)) return error
  return new DatabaseUnavailable('the index cannot be reached', { cause: error })
}
