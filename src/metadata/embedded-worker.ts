import { parentPort, workerData } from 'node:worker_threads'
import { openEngine } from './embedded-files.ts'

/** A statement for the worker, or several without parameters (`script`). */
export interface WorkerRequest {
  readonly id: number
  readonly kind: 'query' | 'script' | 'close'
  readonly text: string
  readonly values: readonly unknown[]
}

/** The worker's answer to one request; the answer to 0 comes by itself when the engine is up. */
export type WorkerAnswer =
  | { readonly id: number; readonly rows: readonly object[] }
  | { readonly id: number; readonly message: string; readonly fields: object }

const port = parentPort
if (port === null) throw new Error('this file runs in a worker thread')
const { directory } = workerData as { directory: string }
const db = await openEngine(directory)
let queue: Promise<void> = Promise.resolve()
port.on('message', (request: WorkerRequest) => {
  queue = queue.then(() => answer(request))
})
send({ id: 0, rows: [] })

async function answer(request: WorkerRequest): Promise<void> {
  try {
    send({ id: request.id, rows: await perform(request) })
    if (request.kind === 'close') port?.close()
  } catch (error) {
    send({ id: request.id, message: error instanceof Error ? error.message : String(error), fields: fieldsOf(error) })
  }
}

async function perform(request: WorkerRequest): Promise<readonly object[]> {
  if (request.kind === 'query') return (await db.query<object>(request.text, [...request.values])).rows
  if (request.kind === 'script') await db.exec(request.text)
  else await db.close()
  return []
}

/** An error's own strings (code, detail, constraint …): a thread boundary keeps nothing but the message of an error. */
function fieldsOf(error: unknown): object {
  if (typeof error !== 'object' || error === null) return {}
  const wanted = new Set(['code', 'severity', 'detail', 'hint', 'constraint', 'table', 'column', 'schema'])
  return Object.fromEntries(
    Object.entries(error).filter(([name, value]) => wanted.has(name) && typeof value === 'string'),
  )
}

function send(message: WorkerAnswer): void {
  port?.postMessage(message)
}
