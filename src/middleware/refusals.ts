import { type Server, STATUS_CODES } from 'node:http'
import type { Duplex } from 'node:stream'
import { RegistryError, errorBody } from '../oci/errors.ts'

/** How long a peer may go on sending after its refusal before the connection is closed. */
const LINGER_MS = 2_000

/** One request that never became one: `status` is what it was answered with. */
export type RefusalObserver = (refusal: { readonly status: number; readonly reason: string }) => void

const STATUS_OF: Readonly<Record<string, number>> = {
  HPE_HEADER_OVERFLOW: 431,
  HPE_CHUNK_EXTENSIONS_OVERFLOW: 413,
  ERR_HTTP_REQUEST_TIMEOUT: 408,
}

/**
 * Answers what Node refuses before the application sees it with the protocol's own error body: malformed HTTP (400),
 * headers that are too large (431) or take too long (408), expectations other than 100-continue (417), and CONNECT
 * (405). What was refused is closed, after its answer had time to arrive: RFC 9112 section 9.6.
 */
export function answerRefusals(server: Server, observe: RefusalObserver): void {
  const answered = new WeakSet<Duplex>()
  const answering = new WeakMap<Duplex, { readonly headersSent: boolean }>()
  server.on('request', (req, res) => answering.set(req.socket, res))
  const refuse = (socket: Duplex, status: number, reason: string): void => {
    // A parser in error fails again with every further byte.
    if (answered.has(socket)) return
    answered.add(socket)
    observe({ status, reason })
    if (!socket.writable || answering.get(socket)?.headersSent === true) {
      socket.destroy()
      return
    }
    socket.on('error', () => socket.destroy())
    const limit = setTimeout(() => socket.destroy(), LINGER_MS).unref()
    socket.once('close', () => clearTimeout(limit))
    socket.resume()
    socket.end(answer(status))
  }
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    const reason = error.code ?? error.message
    if (reason === 'ECONNRESET' || reason === 'EPIPE') socket.destroy()
    else refuse(socket, STATUS_OF[reason] ?? 400, reason)
  })
  server.on('connect', (_req, socket) => refuse(socket, 405, 'CONNECT'))
  server.on('checkExpectation', (_req, res) => {
    observe({ status: 417, reason: 'Expect' })
    const body = bodyOf(417)
    res.writeHead(417, headersOf(body)).end(body)
  })
}

function bodyOf(status: number): string {
  const message = `the request was refused: ${STATUS_CODES[status] ?? 'malformed'}`
  return errorBody(new RegistryError('UNSUPPORTED', { status, message }).entries)
}

function headersOf(body: string): Record<string, string> {
  return {
    'Docker-Distribution-Api-Version': 'registry/2.0',
    'Content-Type': 'application/json',
    'Content-Length': String(Buffer.byteLength(body)),
    Connection: 'close',
  }
}

function answer(status: number): string {
  const body = bodyOf(status)
  const headers = Object.entries(headersOf(body)).map(([name, value]) => `${name}: ${value}`)
  return [`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}`, ...headers, '', body].join('\r\n')
}
