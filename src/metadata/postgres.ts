import { createHash } from 'node:crypto'
import pg from 'pg'
import {
  type Database,
  DatabaseUnavailable,
  IndexUnusable,
  type Queryable,
  type Row,
  type Transaction,
  sqlState,
} from './database.ts'
import { OpenTransaction, retryLostRaces } from './transactions.ts'

/** How to reach a Postgres server (14 or newer). */
export interface PostgresOptions {
  readonly url: string
  /** Connections at most. */
  readonly poolSize?: number
  readonly statementTimeoutMs?: number
  readonly log?: { warn(fields: object, message: string): void }
}

const CONNECT_TIMEOUT_MS = 5_000
/** A statement that waits for a lock gives up before its own time is over. */
const LOCK_TIMEOUT_SHARE = 2 / 3
/** Added to the server's limit on our side, for a server that no longer answers at all. */
const NO_ANSWER_MS = 5_000
const SCRIPT_TIMEOUT_MS = 3_600_000
/** Texts beyond this are not prepared: something builds them, and every connection would keep them. */
const PREPARED_TEXTS = 1_000

const INT8 = 20
const INT8_ARRAY = 1016

/** The connection is lost or was refused. */
const GONE = /^(?:08...|57P0[1-5]|53300|25P03)$/
/** The server gave the statement up, for want of time, room or a sound disk; the connection is sound. */
const GAVE_UP = /^(?:57014|55P03|53[124]00|58...)$/
const SOCKET_FAULT =
  /ECONN|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ENOENT|ENOTFOUND|EAI_AGAIN|timeout|Connection terminated|not queryable|Connection ended/i

/** Opens a pool on a Postgres server; the first connection is made when it is first needed. */
export async function openPostgres(options: PostgresOptions): Promise<Database> {
  const { url, poolSize = 10, statementTimeoutMs = 15_000, log } = options
  const pool = new pg.Pool({
    connectionString: url,
    max: poolSize,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    statement_timeout: statementTimeoutMs,
    lock_timeout: Math.ceil(statementTimeoutMs * LOCK_TIMEOUT_SHARE),
    query_timeout: statementTimeoutMs + NO_ANSWER_MS,
    idle_in_transaction_session_timeout: statementTimeoutMs,
    keepAlive: true,
    types: { getTypeParser: parserOf },
  })
  // A connection that died is dropped by the pool when idle, and by its user's next statement when not.
  pool.on('error', error => log?.warn({ err: error }, 'an idle connection to the index was lost'))
  pool.on('connect', client => client.on('error', () => undefined))
  return new Postgres(pool)
}

const OLDEST_SERVER = 14

/** @throws IndexUnusable where the server is older than our statements can rely on. */
export async function refuseOldServer(db: Queryable): Promise<void> {
  const [row] = await db.query<{ version: string }>(`select current_setting('server_version') as version`)
  const version = row?.version ?? 'unknown'
  if (Number.parseInt(version, 10) >= OLDEST_SERVER) return
  throw new IndexUnusable(`this is Postgres ${version}: Berth needs ${OLDEST_SERVER} or newer`)
}

function parserOf(oid: number, format?: 'text' | 'binary'): (value: string) => unknown {
  if (oid === INT8) return Number
  const parser = pg.types.getTypeParser(oid, format === 'binary' ? 'binary' : 'text') as (value: string) => unknown
  return oid === INT8_ARRAY ? value => (parser(value) as string[]).map(Number) : parser
}

class Postgres implements Database {
  readonly driver = 'postgres'
  readonly #pool: pg.Pool

  constructor(pool: pg.Pool) {
    this.#pool = pool
  }

  async query<R extends object = Row>(text: string, values?: readonly unknown[]): Promise<readonly R[]> {
    try {
      return (await run(this.#pool, text, values)) as readonly R[]
    } catch (error) {
      throw translate(error)
    }
  }

  async transaction<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
    return await retryLostRaces(() => this.#attempt(work))
  }

  async #attempt<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
    const client = await this.#pool.connect().catch((error: unknown) => {
      throw translate(error)
    })
    const open = new OpenTransaction({
      query: (text, values) => guard(run(client, text, values)),
      script: async text => {
        await guard(client.query({ text, query_timeout: SCRIPT_TIMEOUT_MS } as pg.QueryConfig))
      },
    })
    let broken: Error | undefined
    try {
      await guard(client.query('begin'))
      const outcome = await work(open.tx)
      open.end()
      if (open.failure !== undefined) await guard(client.query('select')) // throws where the failure was not undone
      await guard(client.query('commit'))
      return outcome
    } catch (error) {
      open.end()
      broken = isConnectionLoss(error) || isConnectionLoss(open.failure) ? asError(error) : await rollBack(client)
      throw sqlState(error) === '25P02' ? (open.failure ?? error) : error
    } finally {
      client.release(broken)
    }
  }

  changes(): undefined {
    return undefined
  }

  load(): ReturnType<Database['load']> {
    const { totalCount: open, idleCount, waitingCount: waiting } = this.#pool
    return { open, busy: open - idleCount, waiting }
  }

  async close(): Promise<void> {
    await this.#pool.end()
  }
}

/** @returns why the client must not be used again, where rolling back failed. */
async function rollBack(client: pg.PoolClient): Promise<Error | undefined> {
  try {
    await client.query('rollback')
    return undefined
  } catch (error) {
    return asError(error)
  }
}

const names = new Map<string, string>()

function nameOf(text: string): string | undefined {
  let name = names.get(text)
  if (name === undefined && names.size < PREPARED_TEXTS) {
    name = createHash('sha256').update(text).digest('hex').slice(0, 32)
    names.set(text, name)
  }
  return name
}

async function run(
  on: pg.Pool | pg.PoolClient,
  text: string,
  values: readonly unknown[] = [],
): Promise<readonly object[]> {
  const name = nameOf(text)
  const result = await on.query<object>({ text, values: [...values], ...(name === undefined ? {} : { name }) })
  return result.rows
}

async function guard<T>(statement: Promise<T>): Promise<T> {
  try {
    return await statement
  } catch (error) {
    throw translate(error)
  }
}

function translate(error: unknown): unknown {
  if (error instanceof DatabaseUnavailable) return error
  const state = sqlState(error)
  if (state !== undefined && (GONE.test(state) || GAVE_UP.test(state))) {
    return new DatabaseUnavailable('the index does not answer', { cause: error })
  }
  return isSocketFault(error) ? new DatabaseUnavailable('the index cannot be reached', { cause: error }) : error
}

function isConnectionLoss(error: unknown): boolean {
  if (!(error instanceof DatabaseUnavailable)) return false
  const state = sqlState(error.cause)
  return state === undefined || !GAVE_UP.test(state)
}

function isSocketFault(error: unknown): boolean {
  if (error instanceof AggregateError) return error.errors.some(isSocketFault)
  if (!(error instanceof Error)) return false
  // The server's own answers carry a severity, and their texts prove nothing.
  if ('severity' in error) return false
  return SOCKET_FAULT.test(`${'code' in error ? String(error.code) : ''} ${error.message}`)
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error('the transaction failed', { cause: error })
}
