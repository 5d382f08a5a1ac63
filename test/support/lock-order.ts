import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { type Database, sqlState } from '../../src/metadata/database.ts'
import { openPostgres } from '../../src/metadata/postgres.ts'

const LOOK_MS = 5

async function urlOf(db: Database): Promise<string> {
  const [row] = await db.query<{ name: string }>('select current_database() as name')
  const url = new URL(process.env['BERTH_TEST_POSTGRES'] ?? '')
  url.pathname = `/${row?.name}`
  return url.href
}

/** Opens the database so that of two transactions in a deadlock the other one is told: see {@link Rival}. */
export async function openPatient(db: Database): Promise<Database> {
  const url = new URL(await urlOf(db))
  url.searchParams.set('options', '-c deadlock_timeout=10min')
  return await openPostgres({ url: url.href })
}

/** A transaction that locks what it is told, and is the one that is told of a deadlock. */
export class Rival {
  readonly #client: pg.Client
  readonly #pid: number

  private constructor(client: pg.Client, pid: number) {
    this.#client = client
    this.#pid = pid
  }

  static async begin(db: Database): Promise<Rival> {
    const client = new pg.Client(await urlOf(db))
    client.on('error', () => undefined)
    await client.connect()
    await client.query(`set deadlock_timeout = '10ms'`)
    await client.query('begin')
    const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid')
    return new Rival(client, rows[0]?.pid ?? 0)
  }

  async run(text: string, ...values: readonly unknown[]): Promise<void> {
    await this.#client.query(text, [...values])
  }

  /** Whether `work` waits for this transaction now, or is done. Returns once one of them is so. */
  async meets(db: Database, work: Promise<unknown>): Promise<'waits' | 'done'> {
    const done = work.then(
      () => true,
      () => true,
    )
    while (!(await Promise.race([done, delay(LOOK_MS, false)]))) {
      const waiting = await db.query(
        'select from pg_stat_activity where pg_blocking_pids(pid) @> array[$1::int] and datname = current_database()',
        [this.#pid],
      )
      if (waiting.length > 0) return 'waits'
    }
    return 'done'
  }

  /** Runs one more statement. Answers whether that was a deadlock. */
  async isDeadlock(text: string, ...values: readonly unknown[]): Promise<boolean> {
    try {
      await this.run(text, ...values)
      return false
    } catch (error) {
      if (sqlState(error) === '40P01') return true
      throw error
    }
  }

  async end(): Promise<void> {
    await this.#client.query('rollback')
    await this.#client.end()
  }
}
