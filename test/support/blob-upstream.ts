import { once } from 'node:events'
import { type IncomingMessage, type ServerResponse, createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

/** What was asked for a blob. */
export interface BlobAsk {
  readonly method: string
  readonly digest: string
  readonly range: string | undefined
  readonly headers: IncomingMessage['headers']
}

/** An upstream of blobs alone, which gives its bytes as slowly as it is told. */
export interface BlobUpstream {
  readonly url: string
  readonly asked: BlobAsk[]
  /** Blobs by digest. */
  readonly blobs: Map<string, Buffer>
  /** Bytes a second for each transfer; Infinity for as fast as it goes. */
  rate: number
  /** No transfer goes beyond this offset until it is raised. */
  gate: number
  /** Answers in place of the blob; false where it leaves that to the upstream. */
  answer: (ask: BlobAsk, res: ServerResponse) => boolean
  close(): Promise<void>
}

const CHUNK_BYTES = 128 * 1024
const TICK_MS = 5

/** Starts one on a free port. Ranges work as RFC 9110 section 14 says. */
export async function startBlobUpstream(): Promise<BlobUpstream> {
  const server = createServer((req, res) => {
    const digest = decodeURIComponent((req.url ?? '').split('/').at(-1) ?? '')
    const ask = { method: req.method ?? '', digest, range: req.headers.range, headers: req.headers }
    upstream.asked.push(ask)
    if (!upstream.answer(ask, res)) send(upstream, ask, res).catch(() => res.destroy())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const upstream: BlobUpstream = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked: [],
    blobs: new Map(),
    rate: Infinity,
    gate: Infinity,
    answer: () => false,
    async close() {
      upstream.gate = Infinity
      server.closeAllConnections()
      await new Promise(done => server.close(done))
    },
  }
  return upstream
}

async function send(upstream: BlobUpstream, { method, digest, range }: BlobAsk, res: ServerResponse): Promise<void> {
  const bytes = upstream.blobs.get(digest)
  if (bytes === undefined) {
    res.writeHead(404).end()
    return
  }
  const start = Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1] ?? 0)
  const size = bytes.byteLength
  const part = { 'Content-Range': `bytes ${start}-${size - 1}/${size}` }
  res.writeHead(range === undefined ? 200 : 206, {
    'Content-Length': String(size - start),
    ...(range === undefined ? {} : part),
  })
  if (method === 'HEAD') {
    res.end()
    return
  }
  const began = performance.now()
  for (let at = start; at < size;) {
    const due = start + (upstream.rate * (performance.now() - began)) / 1000
    const until = Math.min(at + CHUNK_BYTES, size, upstream.gate, Number.isFinite(due) ? Math.floor(due) : size)
    if (until <= at) {
      if (res.destroyed) return
      await delay(TICK_MS)
      continue
    }
    const { promise, resolve } = Promise.withResolvers<void>()
    // Called with an error as well where the connection goes.
    res.write(bytes.subarray(at, until), () => resolve())
    await promise
    if (res.destroyed) return
    at = until
  }
  res.end()
}
