// An upstream of one layer after the other, in a thread of its own, so that it keeps its pace whatever the bench does.
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { type ServerResponse, createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'

/** A layer that nobody has fetched yet. */
export interface Layer {
  readonly digest: string
  readonly bytes: number
}

/** What the upstream has sent of a layer: when its first byte went out, in epoch milliseconds, and how many asked. */
export interface Sent {
  readonly firstByteAt: number
  readonly requests: number
}

/** A running upstream. */
export interface MirrorUpstream {
  readonly url: string
  /** Makes a layer of so many bytes. */
  offer(bytes: number): Promise<Layer>
  /** What was sent of a layer that was offered. */
  sent(layer: Layer): Promise<Sent>
  stop(): Promise<void>
}

interface Offered {
  readonly salt: Buffer
  readonly bytes: number
  firstByteAt: number
  requests: number
}

const CHUNK_BYTES = 64 * 1024
const TICK_MS = 2

/** Milliseconds since the epoch, as all threads count them. */
export function epochMs(): number {
  return performance.timeOrigin + performance.now()
}

/** Starts one that gives `bytesPerSecond` to each request. */
export async function startMirrorUpstream(bytesPerSecond: number): Promise<MirrorUpstream> {
  const worker = new Worker(new URL(import.meta.url), { workerData: { bytesPerSecond } })
  const ask = async <T>(question: unknown): Promise<T> => {
    worker.postMessage(question)
    const [answer] = (await once(worker, 'message')) as [T]
    return answer
  }
  const [url] = (await once(worker, 'message')) as [string]
  return {
    url,
    offer: bytes => ask({ offer: bytes }),
    sent: ({ digest }) => ask({ sent: digest }),
    async stop() {
      await worker.terminate()
    },
  }
}

if (!isMainThread && parentPort !== null) {
  const { bytesPerSecond } = workerData as { bytesPerSecond: number }
  const layers = new Map<string, Offered>()
  const random = randomBytes(CHUNK_BYTES)
  const server = createServer((req, res) => {
    const layer = layers.get(decodeURIComponent((req.url ?? '').split('/').at(-1) ?? ''))
    if (layer === undefined) res.writeHead(404).end()
    else send(layer, res).catch(() => res.destroy())
  })
  /** Random bytes over and over, of which the first few differ. */
  const pieceOf = ({ salt, bytes }: Offered, at: number): Buffer =>
    at === 0 ? salt : random.subarray(0, Math.min(CHUNK_BYTES, bytes - at))
  const send = async (layer: Offered, res: ServerResponse): Promise<void> => {
    layer.requests += 1
    res.writeHead(200, { 'Content-Length': String(layer.bytes) })
    const began = performance.now()
    for (let at = 0; at < layer.bytes && !res.destroyed;) {
      const piece = pieceOf(layer, at)
      if (at > (bytesPerSecond * (performance.now() - began)) / 1000) {
        await delay(TICK_MS)
        continue
      }
      if (at === 0) layer.firstByteAt ||= epochMs()
      at += piece.byteLength
      if (!res.write(piece)) await once(res, 'drain')
    }
    res.end()
  }
  parentPort.on('message', (question: { offer?: number; sent?: string }) => {
    if (question.offer !== undefined) {
      const layer = { salt: randomBytes(64), bytes: question.offer, firstByteAt: 0, requests: 0 }
      const hash = createHash('sha256')
      for (let at = 0; at < layer.bytes;) {
        const piece = pieceOf(layer, at)
        hash.update(piece)
        at += piece.byteLength
      }
      const digest = `sha256:${hash.digest('hex')}`
      layers.set(digest, layer)
      parentPort?.postMessage({ digest, bytes: layer.bytes })
    } else {
      const { firstByteAt, requests } = layers.get(question.sent ?? '') ?? { firstByteAt: 0, requests: 0 }
      parentPort?.postMessage({ firstByteAt, requests })
    }
  })
  server.listen(0, '127.0.0.1', () => {
    parentPort?.postMessage(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  })
}
