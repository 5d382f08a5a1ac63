import { type IncomingMessage, type RequestListener, type ServerResponse, createServer } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { expectsContinue } from './middleware/expect.ts'
import { type RefusalObserver, answerRefusals } from './middleware/refusals.ts'
import { type TlsFiles, type TlsObserver, readTls, reloadTls } from './tls.ts'

/** A listening address and its requests. */
export interface HttpServer {
  /** `http://127.0.0.1:5000` */
  readonly url: string
  /**
   * Stops accepting and lets the running requests finish within `limitMs`; then cuts their connections and waits until
   * their handlers have ended as well, which is when nothing uses what they work with any more. Connections that stay
   * open for a next request are closed at once, or with the answer under way (`Connection: close`, RFC 9112 section 9.6).
   */
  close(limitMs: number): Promise<void>
}

export interface HttpServerOptions {
  readonly host: string
  /** 0 takes a free one. */
  readonly port: number
  /** A connection on which nothing moves for this long is closed. */
  readonly idleTimeoutMs: number
  /** Resolves when it uses nothing of the request any more; where it rejects, the connection is cut. */
  readonly handle: (req: IncomingMessage, res: ServerResponse) => Promise<unknown>
  /** Certificate and key to speak TLS with, looked at again when the files change; absent for plain HTTP. */
  readonly tls?: TlsFiles & TlsObserver
  /** Told of what was refused before it was a request. */
  readonly onRefusal: RefusalObserver
}

/** Go clients keep idle connections for up to 120 s; ours must outlive theirs, or a request meets a closing socket. */
const KEEP_ALIVE_MS = 150_000
/** The longest head of a request. A Range of 1,024 parts is 20 KB of it; a token as a password may be 44 KB. */
export const MAX_HEAD_BYTES = 64 * 1024
const HTTP_OPTIONS = {
  keepAliveTimeout: KEEP_ALIVE_MS,
  maxHeaderSize: MAX_HEAD_BYTES,
  /** A request without Host is refused by the application, with the protocol's error body. */
  requireHostHeader: false,
}
/** How long handlers may take to notice that their connection was cut. */
const UNWIND_MS = 15_000

/** Listens for HTTP/1.1. @throws the system's error where the address cannot be had. */
export async function listen(options: HttpServerOptions): Promise<HttpServer> {
  const running = new Map<ServerResponse, Promise<unknown>>()
  let isClosing = false
  const onRequest: RequestListener = (req, res) => {
    if (isClosing) res.shouldKeepAlive = false
    const handled = options
      .handle(req, res)
      .catch((error: Error) => res.destroy(error))
      .finally(() => running.delete(res))
    running.set(res, handled)
    // An answer whose head was sent before the closing began could not say that its connection ends.
    res.once('close', () => isClosing && setImmediate(() => server.closeIdleConnections()))
  }
  const { tls } = options
  const secure =
    tls === undefined ? undefined : createTlsServer({ ...HTTP_OPTIONS, ...(await readTls(tls)) }, onRequest)
  const server = secure ?? createServer(HTTP_OPTIONS, onRequest)
  server.on('checkContinue', (req, res) => {
    expectsContinue(req, res)
    onRequest(req, res)
  })
  answerRefusals(server, options.onRefusal)
  // A push of many gigabytes over a thin line is no fault; a peer that sends nothing is.
  server.requestTimeout = 0
  server.setTimeout(options.idleTimeoutMs)
  const listening = Promise.withResolvers<void>()
  server.once('error', listening.reject)
  server.listen(options.port, options.host, listening.resolve)
  await listening.promise
  const stopReloading = secure === undefined || tls === undefined ? undefined : await reloadTls(secure, tls, tls)
  return {
    url: urlOf(server.address() as AddressInfo, secure === undefined ? 'http' : 'https'),
    async close(limitMs) {
      isClosing = true
      await stopReloading?.()
      const closed = Promise.withResolvers<void>()
      server.close(() => closed.resolve())
      for (const res of running.keys()) if (!res.headersSent) res.shouldKeepAlive = false
      const limit = setTimeout(() => server.closeAllConnections(), limitMs)
      await closed.promise
      clearTimeout(limit)
      await Promise.race([Promise.allSettled(running.values()), delay(UNWIND_MS, undefined, { ref: false })])
    },
  }
}

function urlOf({ address, family, port }: AddressInfo, protocol: 'http' | 'https'): string {
  return `${protocol}://${family === 'IPv6' ? `[${address}]` : address}:${port}`
}
