import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, rename, rm } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { type Database, DatabaseUnavailable, IndexUnusable, type Row, type Transaction, sqlState } from './database.ts'
import { isAside } from './aside.ts'
import { Engine, START_TIMEOUT_MS } from './embedded-engine.ts'
import { OpenTransaction, retryLostRaces } from './transactions.ts'

/** Where the embedded index lives. */
export interface EmbeddedOptions {
  readonly directory: string
  /** A statement that takes longer is given up, and so is a transaction that is idle for longer. */
  readonly timeoutMs?: number
  readonly log?: { warn(fields: object, message: string): void }
}

/** How much log the engine writes between two checkpoints: nothing but us starts one. */
const CHECKPOINT_BYTES = 32 * 1024 * 1024
/** How many turns pass between two looks at the size of the log. */
const CHECKPOINT_TURNS = 1_000

/**
 * Opens Postgres compiled to WebAssembly on a directory, in a worker thread. One process at a time: the lock beside the
 * directory dies with its holder. A commit is on the disk when it is acknowledged, as it is with a server.
 * @throws IndexUnusable where another process has the directory open.
 */
export async function openEmbedded(options: EmbeddedOptions): Promise<Database> {
  const directory = resolve(options.directory)
  await mkdir(dirname(directory), { recursive: true })
  const lock = lockDirectory(`${directory}.lock`)
  try {
    await initialise(directory)
    keepBaselineCode()
    const database = new Embedded({ ...options, directory }, lock)
    await database.open()
    return database
  } catch (error) {
    lock.close()
    throw error
  }
}

/**
 * Keeps V8 from optimising the engine: one function, its interpreter of expressions, takes 0.6 GB for a moment to
 * optimise, which a small machine does not have. Baseline code costs 0.1 ms a query. The flags are the process's.
 */
function keepBaselineCode(): void {
  for (const flag of ['--no-wasm-tier-up', '--no-wasm-dynamic-tiering']) setFlagsFromString(flag)
}

/** An exclusive SQLite transaction is a lock that the operating system gives back when its holder dies. */
function lockDirectory(path: string): DatabaseSync {
  const lock = new DatabaseSync(path)
  try {
    lock.exec('begin exclusive')
  } catch (cause) {
    lock.close()
    if (!isBusy(cause)) throw cause
    throw new IndexUnusable(
      `another process has the data directory ${dirname(path)} open: stop it, or set BERTH_DATA_DIR to another one, ` +
        'or give both processes one Postgres by BERTH_DATABASE_URL',
      { cause },
    )
  }
  return lock
}

/** Whether SQLite says that another holds the lock (SQLITE_BUSY). */
function isBusy(error: unknown): boolean {
  return error instanceof Error && 'errcode' in error && error.errcode === 5
}

/** Makes the data directory where there is none, beside its place: a directory that is there is whole. */
async function initialise(directory: string): Promise<void> {
  if (existsSync(join(directory, 'PG_VERSION'))) return
  const unfinished = `${directory}.new`
  await rm(unfinished, { recursive: true, force: true })
  const script = fileURLToPath(new URL('./embedded-init.ts', import.meta.url))
  const flags = ['--disable-warning=ExperimentalWarning', '--liftoff-only']
  await promisify(execFile)(process.execPath, [...flags, script, unfinished], { timeout: START_TIMEOUT_MS })
  await rename(unfinished, directory)
}

class Embedded implements Database {
  readonly driver = 'embedded'
  readonly #options: EmbeddedOptions
  readonly #timeoutMs: number
  readonly #lock: DatabaseSync
  #engine: Engine
  #isClosed = false
  #turns = 0
  #changes = 0
  /** Callers that have a turn or wait for one. */
  #callers = 0
  /** Transactions and single queries take turns: the engine has one session, so nothing may run inside another's transaction. */
  #turn: Promise<unknown> = Promise.resolve()

  constructor(options: EmbeddedOptions, lock: DatabaseSync) {
    this.#options = options
    this.#timeoutMs = options.timeoutMs ?? 15_000
    this.#lock = lock
    this.#engine = new Engine(options.directory, this.#timeoutMs)
  }

  async open(): Promise<void> {
    try {
      await this.#engine.started
    } catch (error) {
      await this.#engine.stop()
      throw error
    }
  }

  async query<R extends object = Row>(text: string, values?: readonly unknown[]): Promise<readonly R[]> {
    return (await this.#inTurn(engine => engine.ask('query', text, values))) as readonly R[]
  }

  async transaction<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
    return await retryLostRaces(() => this.#inTurn(engine => this.#attempt(engine, work)))
  }

  changes(): number {
    return this.#changes
  }

  load(): ReturnType<Database['load']> {
    const busy = Math.min(this.#callers, 1)
    return { open: 1, busy, waiting: this.#callers - busy }
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    await this.#turn
    if (!this.#engine.hasEnded) await this.#engine.ask('close', '').catch(() => undefined)
    await this.#engine.stop()
    this.#lock.close()
  }

  async #attempt<T>(engine: Engine, work: (tx: Transaction) => Promise<T>): Promise<T> {
    await engine.ask('query', 'begin')
    const idle = new IdleWatch(this.#timeoutMs)
    let isAsideOnly = true
    const open = new OpenTransaction({
      query: (text, values) => {
        isAsideOnly &&= isAside(text)
        return engine.ask('query', text, values)
      },
      script: async text => {
        isAsideOnly = false
        await engine.ask('script', text)
      },
      busy: isBusy => idle.mark(isBusy),
    })
    try {
      const outcome = await Promise.race([work(open.tx), idle.expired])
      open.end()
      if (open.failure !== undefined) await engine.ask('query', 'select') // throws where the failure was not undone
      if (!isAsideOnly) this.#changes++
      await engine.ask('query', 'commit')
      return outcome
    } catch (error) {
      open.end()
      // A session that cannot roll back must not serve the next turn.
      await engine.ask('query', 'rollback').catch(() => engine.stop())
      throw sqlState(error) === '25P02' ? (open.failure ?? error) : error
    } finally {
      idle.stop()
    }
  }

  async #inTurn<T>(work: (engine: Engine) => Promise<T>): Promise<T> {
    if (this.#isClosed) throw new DatabaseUnavailable('the index is closed')
    const mine = this.#turn.then(async () => await work(await this.#running()))
    this.#turn = mine.then(
      () => this.#checkpoint(),
      () => undefined,
    )
    this.#callers++
    try {
      return await mine
    } finally {
      this.#callers--
    }
  }

  /** The engine, started again where it ended. */
  async #running(): Promise<Engine> {
    if (!this.#engine.hasEnded) return this.#engine
    this.#options.log?.warn({}, 'the index stopped and is started again')
    await this.#engine.stop()
    this.#engine = new Engine(this.#options.directory, this.#timeoutMs)
    await this.#engine.started
    return this.#engine
  }

  async #checkpoint(): Promise<void> {
    if (++this.#turns % CHECKPOINT_TURNS !== 0) return
    try {
      const [row] = (await this.#engine.ask(
        'query',
        `select pg_wal_lsn_diff(pg_current_wal_lsn(), redo_lsn)::float8 as bytes from pg_control_checkpoint()`,
      )) as readonly { bytes: number }[]
      if (row !== undefined && row.bytes > CHECKPOINT_BYTES) await this.#engine.ask('query', 'checkpoint')
    } catch (error) {
      this.#options.log?.warn({ err: error }, 'a checkpoint of the index failed')
    }
  }
}

/** Ends a transaction whose owner has asked nothing for too long: all others wait for it. */
class IdleWatch {
  readonly expired: Promise<never>
  readonly #timeoutMs: number
  readonly #giveUp: () => void
  #timer: NodeJS.Timeout | undefined
  #running = 0

  constructor(timeoutMs: number) {
    const { promise, reject } = Promise.withResolvers<never>()
    promise.catch(() => undefined)
    this.expired = promise
    this.#timeoutMs = timeoutMs
    this.#giveUp = () => reject(new DatabaseUnavailable(`a transaction was idle for ${timeoutMs} ms`))
    this.#timer = setTimeout(this.#giveUp, timeoutMs)
  }

  mark(isBusy: boolean): void {
    this.#running += isBusy ? 1 : -1
    clearTimeout(this.#timer)
    if (this.#running === 0) this.#timer = setTimeout(this.#giveUp, this.#timeoutMs)
  }

  stop(): void {
    clearTimeout(this.#timer)
    this.#running = Number.POSITIVE_INFINITY
  }
}
