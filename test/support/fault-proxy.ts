import { type IncomingMessage, type ServerResponse, createServer, request as ask } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

/**
 * What a proxy does to one request:
 * - `delay`: passes it on late;
 * - a number or `SlowDown`, `AccessDenied`, …: answers with that status, or that error of S3, without passing it on;
 * - `cut-before`: closes the connection without passing it on;
 * - `cut-after`: passes it on, and closes the connection instead of answering;
 * - `hold`: passes it on, and never answers;
 * - `half-request`: passes on half of its body, then closes both connections;
 * - `half-answer`: answers with half of the body, then closes the connection.
 */
export type Fault =
  | { readonly kind: 'delay'; readonly ms: number }
  | { readonly kind: 'answer'; readonly status: number; readonly code: string }
  | { readonly kind: 'cut-before' | 'cut-after' | 'hold' | 'half-request' | 'half-answer' }

/** Decides what happens to a request; undefined passes it on as it is. */
export type FaultPlan = (request: { readonly method: string; readonly url: URL }) => Fault | undefined

/** A proxy before an S3 server. */
export interface FaultProxy {
  readonly endpoint: string
  /** What happens to the requests from now on. */
  plan: FaultPlan
  /** Requests seen, as `METHOD /path?query`. */
  readonly seen: string[]
  /** Requests that the server has carried out and nobody was answered, because they are held. */
  readonly held: number
  close(): Promise<void>
}

/** Starts a proxy on a free port that passes everything on as it comes, `Host` included, so that signatures hold. */
export async function startFaultProxy(target: string): Promise<FaultProxy> {
  const upstream = new URL(target)
  const proxy: { plan: FaultPlan; seen: string[]; held: number } = { plan: () => undefined, seen: [], held: 0 }
  const server = createServer((req, res) => {
    const { method = 'GET', url = '/' } = req
    proxy.seen.push(`${method} ${url}`)
    const fault = proxy.plan({ method, url: new URL(url, target) })
    handle(req, res, upstream, fault)
      .then(isHeld => (proxy.held += isHeld ? 1 : 0))
      .catch(() => res.destroy())
  })
  const { promise, resolve } = Promise.withResolvers<void>()
  server.listen(0, '127.0.0.1', resolve)
  await promise
  const { port } = server.address() as AddressInfo
  return Object.assign(proxy, {
    endpoint: `http://127.0.0.1:${port}`,
    close: async () => {
      server.closeAllConnections()
      await new Promise(done => server.close(done))
    },
  })
}

/** Answers whether the request is held. */
async function handle(
  req: IncomingMessage,
  res: ServerResponse,
  upstream: URL,
  fault: Fault | undefined,
): Promise<boolean> {
  if (fault?.kind === 'delay') await delay(fault.ms)
  if (fault?.kind === 'cut-before') {
    req.socket.destroy()
    return false
  }
  if (fault?.kind === 'answer') {
    for await (const _chunk of req) {
      // A server that answers before it has read the body makes the client see a reset, which is another fault.
    }
    const body = `<?xml version="1.0" encoding="UTF-8"?><Error><Code>${fault.code}</Code><Message>by the test</Message></Error>`
    res.writeHead(fault.status, { 'Content-Type': 'application/xml', 'Content-Length': body.length })
    res.end(req.method === 'HEAD' ? undefined : body)
    return false
  }
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
  const forward = ask(
    { host: upstream.hostname, port: upstream.port, method: req.method, path: req.url, headers: req.headers },
    resolve,
  )
  forward.on('error', reject)
  // It may fail, or answer, while the body is still being passed on; then the rest of the body goes nowhere.
  let isOver = false
  const over = promise.then(
    () => (isOver = true),
    () => (isOver = true),
  )
  const length = Number(req.headers['content-length'] ?? 0)
  let passed = 0
  for await (const chunk of req) {
    passed += (chunk as Uint8Array).byteLength
    if (fault?.kind === 'half-request' && passed > length / 2) {
      forward.destroy()
      req.socket.destroy()
      return false
    }
    if (!isOver) await Promise.race([over, new Promise<void>(written => forward.write(chunk, () => written()))])
  }
  forward.end()
  const answer = await promise
  if (fault?.kind === 'cut-after' || fault?.kind === 'hold') {
    for await (const _chunk of answer) {
      // What it did is done.
    }
    if (fault.kind === 'hold') return true
    req.socket.destroy()
    return false
  }
  res.writeHead(answer.statusCode ?? 502, answer.headers)
  const size = Number(answer.headers['content-length'] ?? 0)
  let sent = 0
  for await (const chunk of answer) {
    const bytes = chunk as Uint8Array
    if (fault?.kind === 'half-answer' && sent + bytes.byteLength > size / 2) {
      const half = bytes.subarray(0, Math.max(0, Math.floor(size / 2) - sent))
      // Once written, so that the client has it before the connection goes.
      res.write(half, () => req.socket.destroy())
      return false
    }
    sent += bytes.byteLength
    await new Promise<void>(written => res.write(bytes, () => written()))
  }
  res.end()
  return false
}
