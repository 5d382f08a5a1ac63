import { mkdir } from 'node:fs/promises'
import { DatabaseSync } from 'node:sqlite'
import { Worker } from 'node:worker_threads'
import { type Database, DatabaseUnavailable, type Row, type Transaction, sqlState } from './database.ts'
import type { WorkerAnswer, WorkerRequest } from './embedded-worker.ts'

/** Where the embedded index lives. */
export interface EmbeddedOptions {
  readonly directory: string
  /** A statement that takes longer is given up. */
  readonly timeoutMs?: number
}

const ATTEMPTS = 8
const START_TIMEOUT_MS = 60_000

/**
 * Opens Postgres compiled to WebAssembly on a directory, in a worker thread. One process at a time: the lock beside the
 * directory dies with its holder. Commits survive the death of the process; after a power cut what the operating system
 * had written counts.
 * @throws Error where another process has the directory open.
 */
export async function openEmbedded(options: EmbeddedOptions): Promise<Database> {
  await mkdir(options.directory, { recursive: true })
  const lock = lockDirectory(`${options.directory}.lock`)
  const database = new Embedded(options, lock)
  try {
    await database.started()
  } catch (error) {
    lock.close()
    throw error
  }
  return database
}

/** An exclusive SQLite transaction is a lock that the operating system gives back when its holder dies. */
function lockDirectory(path: string): DatabaseSync {
  const lock = new DatabaseSync(path)
  try {
    lock.exec('begin exclusive')
  } catch (cause) {
    lock.close()
    throw new Error(`another process has this data directory open (${path})`, { cause })
  }
  return lock
}

class EmbeddedError extends Error {
  override readonly name = 'EmbeddedError'
  readonly code: string | undefined

  constructor(message: string, code: string | undefined) {
    super(message)
    this.code = code
  }
}

interface Pending {
  readonly resolve: (rows: readonly object[]) => void
  readonly reject: (error: Error) => void
  readonly watchdog: NodeJS.Timeout
}

class Embedded implements Database {
  readonly driver = 'embedded'
  readonly #worker: Worker
  readonly #lock: DatabaseSync
  readonly #timeoutMs: number
  readonly #pending = new Map<number, Pending>()
  readonly #start = Promise.withResolvers<void>()
  #lastId = 0
  #dead: Error | undefined
  /** Transactions and single queries take turns: the index has one session, so nothing may run inside another's transaction. */
  #turn: Promise<unknown> = Promise.resolve()

  constructor(options: EmbeddedOptions, lock: DatabaseSync) {
    this.#lock = lock
    this.#timeoutMs = options.timeoutMs ?? 15_000
    this.#worker = new Worker(new URL('./embedded-worker.ts', import.meta.url), {
      workerData: { directory: options.directory },
    })
    this.#worker.on('message', (answer: WorkerAnswer) => this.#settle(answer))
    this.#worker.on('error', error => this.#die(error))
    this.#worker.on('exit', () => this.#die(new Error('the index thread ended')))
  }

  async started(): Promise<void> {
    const watchdog = setTimeout(() => this.#die(new Error('the index did not start in time')), START_TIMEOUT_MS)
    try {
      await this.#start.promise
    } finally {
      clearTimeout(watchdog)
    }
  }

  async query<R extends object = Row>(text: string, values?: readonly unknown[]): Promise<readonly R[]> {
    return await this.#inTurn(() => this.#ask<R>('query', text, values))
  }

  async transaction<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#inTurn(() => this.#attempt(work))
      } catch (error) {
        const state = sqlState(error)
        if ((state !== '40001' && state !== '40P01') || attempt === ATTEMPTS) throw error
      }
    }
  }

  async close(): Promise<void> {
    if (this.#dead === undefined) {
      await this.#inTurn(() => this.#ask('close', ''))
      this.#dead = new Error('the index is closed')
    }
    await this.#worker.terminate()
    if (this.#lock.isOpen) this.#lock.close()
  }

  async #attempt<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
    await this.#ask('query', 'begin')
    try {
      const tx = {
        query: (text: string, values?: readonly unknown[]) => this.#ask('query', text, values),
        script: async (text: string) => {
          await this.#ask('script', text)
        },
      } as unknown as Transaction
      const outcome = await work(tx)
      await this.#ask('query', 'commit')
      return outcome
    } catch (error) {
      // Where even this fails the thread is dead, and every later call says so.
      await this.#ask('query', 'rollback').catch(() => undefined)
      throw error
    }
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(work)
    this.#turn = mine.catch(() => undefined)
    return await mine
  }

  async #ask<R extends object>(
    kind: WorkerRequest['kind'],
    text: string,
    values: readonly unknown[] = [],
  ): Promise<readonly R[]> {
    if (this.#dead !== undefined) throw new DatabaseUnavailable('the index is not running', { cause: this.#dead })
    const id = ++this.#lastId
    const { promise, resolve, reject } = Promise.withResolvers<readonly object[]>()
    const watchdog = setTimeout(
      () => this.#die(new Error(`the index gave no answer in ${this.#timeoutMs} ms`)),
      this.#timeoutMs,
    )
    this.#pending.set(id, { resolve, reject, watchdog })
    this.#worker.postMessage({ id, kind, text, values } satisfies WorkerRequest)
    return (await promise) as readonly R[]
  }

  #settle(answer: WorkerAnswer): void {
    if (answer.id === 0) {
      this.#start.resolve()
      return
    }
    const pending = this.#pending.get(answer.id)
    if (pending === undefined) return
    this.#pending.delete(answer.id)
    clearTimeout(pending.watchdog)
    if ('rows' in answer) pending.resolve(answer.rows)
    else pending.reject(new EmbeddedError(answer.message, answer.code))
  }

  #die(error: Error): void {
    this.#dead ??= error
    this.#start.reject(error)
    for (const pending of this.#pending.values()) {
      clearTimeout(pending.watchdog)
      pending.reject(new DatabaseUnavailable('the index thread stopped', { cause: error }))
    }
    this.#pending.clear()
  }
}
