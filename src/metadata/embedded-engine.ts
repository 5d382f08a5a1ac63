import { Worker } from 'node:worker_threads'
import { DatabaseUnavailable, sqlState } from './database.ts'
import type { WorkerAnswer, WorkerRequest } from './embedded-worker.ts'

/** How long the engine may take to initialise or to open. */
export const START_TIMEOUT_MS = 60_000
const SCRIPT_TIMEOUT_MS = 3_600_000
/** Classes 53 and 58 of SQLSTATE: the disk or the memory gave out. */
const NO_ROOM = /^5[38]/

/** An error of the engine, with the fields (`code`, `constraint` …) of the original. */
class EmbeddedError extends Error {
  override readonly name = 'EmbeddedError'

  constructor(message: string, fields: object) {
    super(message)
    Object.assign(this, fields)
  }
}

function errorOf({ message, fields }: { readonly message: string; readonly fields: object }): Error {
  const error = new EmbeddedError(message, fields)
  return NO_ROOM.test(sqlState(error) ?? '')
    ? new DatabaseUnavailable('the index has no room or no sound disk', { cause: error })
    : error
}

interface Pending {
  readonly resolve: (rows: readonly object[]) => void
  readonly reject: (error: Error) => void
  readonly watchdog: NodeJS.Timeout
}

/** One run of the worker. It ends for good: what was pending fails, and `embedded.ts` starts another. */
export class Engine {
  readonly #worker: Worker
  readonly #timeoutMs: number
  readonly #pending = new Map<number, Pending>()
  #lastId = 0
  #ended: Error | undefined
  readonly started: Promise<unknown>

  constructor(directory: string, timeoutMs: number) {
    this.#timeoutMs = timeoutMs
    // Flags of the process (--eval, --input-type, --test) are not the worker's.
    this.#worker = new Worker(new URL('./embedded-worker.ts', import.meta.url), {
      workerData: { directory },
      execArgv: [],
    })
    this.started = this.#expect(0, START_TIMEOUT_MS)
    this.#worker.on('message', (answer: WorkerAnswer) => this.#settle(answer))
    this.#worker.on('error', error => this.#end(error instanceof Error ? error : new Error(String(error))))
    this.#worker.on('exit', () => this.#end(new Error('the thread ended')))
  }

  get hasEnded(): boolean {
    return this.#ended !== undefined
  }

  async ask(kind: WorkerRequest['kind'], text: string, values: readonly unknown[] = []): Promise<readonly object[]> {
    if (this.#ended !== undefined) throw new DatabaseUnavailable('the index stopped', { cause: this.#ended })
    const id = ++this.#lastId
    this.#worker.postMessage({ id, kind, text, values } satisfies WorkerRequest)
    return await this.#expect(id, kind === 'script' ? SCRIPT_TIMEOUT_MS : this.#timeoutMs)
  }

  async stop(): Promise<void> {
    this.#end(new Error('the index is closed'))
    await this.#worker.terminate()
  }

  async #expect(id: number, timeoutMs: number): Promise<readonly object[]> {
    const { promise, resolve: keep, reject } = Promise.withResolvers<readonly object[]>()
    const giveUp = (): void => this.#end(new Error(`no answer in ${timeoutMs} ms`))
    this.#pending.set(id, { resolve: keep, reject, watchdog: setTimeout(giveUp, timeoutMs) })
    return await promise
  }

  #settle(answer: WorkerAnswer): void {
    const pending = this.#pending.get(answer.id)
    if (pending === undefined) return
    this.#pending.delete(answer.id)
    clearTimeout(pending.watchdog)
    if ('rows' in answer) pending.resolve(answer.rows)
    else pending.reject(errorOf(answer))
  }

  #end(cause: Error): void {
    this.#ended ??= cause
    for (const pending of this.#pending.values()) {
      clearTimeout(pending.watchdog)
      pending.reject(new DatabaseUnavailable('the index stopped', { cause }))
    }
    this.#pending.clear()
  }
}
