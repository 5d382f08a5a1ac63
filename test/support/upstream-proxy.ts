import { type IncomingMessage, type ServerResponse, createServer, request as ask } from 'node:http'
import type { AddressInfo } from 'node:net'

/** A request to an upstream, as it came. */
export interface SeenRequest {
  readonly method: string
  /** Path and query. */
  readonly path: string
  readonly headers: IncomingMessage['headers']
}

/**
 * What happens to a request: undefined passes it on; `cut` closes the connection; `half` answers with half of the body and
 * closes; `half-sent` passes on half of the request's body and closes; `stall` answers with half of the body, then nothing until {@link UpstreamProxy.resume}; an answer is given in place.
 */
export type Whim =
  | undefined
  | 'cut'
  | 'half'
  | 'half-sent'
  | 'stall'
  | {
      readonly status: number
      readonly headers?: Readonly<Record<string, string>>
      readonly body?: string | Uint8Array
    }

/** A registry as unreliable as a public one can be. */
export interface UpstreamProxy {
  readonly url: string
  readonly seen: SeenRequest[]
  whim: (request: SeenRequest) => Whim
  /** Lets go on what stalls now. */
  resume: () => void
  close(): Promise<void>
}

/** Starts a proxy before a registry; with `keepsHost` the registry makes its absolute URLs of the proxy's address. */
export async function startUpstreamProxy(
  target: string,
  { keepsHost = false }: { readonly keepsHost?: boolean } = {},
): Promise<UpstreamProxy> {
  const seen: SeenRequest[] = []
  let resumed = Promise.withResolvers<void>()
  const server = createServer((req, res) => {
    const request = { method: req.method ?? '', path: req.url ?? '', headers: { ...req.headers } }
    seen.push(request)
    if (!keepsHost) delete req.headers.host
    handle(req, res, new URL(target), proxy.whim(request), () => resumed.promise).catch(() => res.destroy())
  })
  const listening = Promise.withResolvers<void>()
  server.listen(0, '127.0.0.1', listening.resolve)
  await listening.promise
  const { port } = server.address() as AddressInfo
  const proxy: UpstreamProxy = {
    url: `http://127.0.0.1:${port}`,
    seen,
    whim: () => undefined,
    resume() {
      resumed.resolve()
      resumed = Promise.withResolvers()
    },
    async close() {
      resumed.resolve()
      server.closeAllConnections()
      await new Promise(done => server.close(done))
    },
  }
  return proxy
}

async function handle(
  req: IncomingMessage,
  res: ServerResponse,
  target: URL,
  whim: Whim,
  resumed: () => Promise<void>,
): Promise<void> {
  if (whim === 'cut') {
    req.socket.destroy()
    return
  }
  if (typeof whim === 'object') {
    res.writeHead(whim.status, whim.headers)
    res.end(whim.body)
    return
  }
  const answered = Promise.withResolvers<IncomingMessage>()
  const asked = ask(
    { host: target.hostname, port: target.port, method: req.method, path: req.url, headers: req.headers },
    answered.resolve,
  )
  asked.on('error', answered.reject)
  if (whim === 'half-sent') {
    let sent = 0
    const half = Math.floor(Number(req.headers['content-length']) / 2)
    for await (const chunk of req) {
      const bytes = (chunk as Buffer).subarray(0, Math.max(half - sent, 0))
      sent += bytes.byteLength
      await new Promise<void>(written => asked.write(bytes, () => written()))
      if (sent === half) break
    }
    answered.promise.catch(() => undefined)
    asked.destroy()
    req.socket.destroy()
    return
  }
  req.pipe(asked)
  const answer = await answered.promise
  res.writeHead(answer.statusCode ?? 502, answer.headers)
  const half = Math.floor(Number(answer.headers['content-length'] ?? 0) / 2)
  let sent = 0
  for await (const chunk of answer) {
    const bytes = chunk as Buffer
    const isHalf = (whim === 'half' || whim === 'stall') && sent + bytes.byteLength > half && sent <= half
    if (isHalf) {
      const until = half - sent
      await new Promise<void>(written => res.write(bytes.subarray(0, until), () => written()))
      if (whim === 'half') {
        req.socket.destroy()
        return
      }
      await resumed()
      await new Promise<void>(written => res.write(bytes.subarray(until), () => written()))
    } else await new Promise<void>(written => res.write(bytes, () => written()))
    sent += bytes.byteLength
  }
  res.end()
}
