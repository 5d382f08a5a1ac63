import { PGlite } from '@electric-sql/pglite'
import { parentPort, workerData } from 'node:worker_threads'

/** A statement for the worker, or several without parameters (`script`). */
export interface WorkerRequest {
  readonly id: number
  readonly kind: 'query' | 'script' | 'close'
  readonly text: string
  readonly values: readonly unknown[]
}

/** The worker's answer to one request. */
export type WorkerAnswer =
  | { readonly id: number; readonly rows: readonly object[] }
  | { readonly id: number; readonly message: string; readonly code: string | undefined }

const INT8 = 20
const XID8 = 5069

const port = parentPort
if (port === null) throw new Error('this file runs in a worker thread')
const { directory } = workerData as { directory: string }
const db = await PGlite.create({
  dataDir: directory,
  relaxedDurability: false,
  parsers: { [INT8]: Number, [XID8]: String },
})
let queue: Promise<void> = Promise.resolve()
port.on('message', (request: WorkerRequest) => {
  queue = queue.then(() => answer(request))
})
port.postMessage({ id: 0, rows: [] } satisfies WorkerAnswer)

async function answer(request: WorkerRequest): Promise<void> {
  try {
    if (request.kind === 'close') {
      await db.close()
      port?.postMessage({ id: request.id, rows: [] } satisfies WorkerAnswer)
      port?.close()
      return
    }
    const rows: readonly object[] =
      request.kind === 'script'
        ? (await db.exec(request.text), [])
        : (await db.query<object>(request.text, [...request.values])).rows
    port?.postMessage({ id: request.id, rows } satisfies WorkerAnswer)
  } catch (error) {
    const code = typeof error === 'object' && error !== null && 'code' in error ? String(error.code) : undefined
    const message = error instanceof Error ? error.message : String(error)
    port?.postMessage({ id: request.id, message, code } satisfies WorkerAnswer)
  }
}
