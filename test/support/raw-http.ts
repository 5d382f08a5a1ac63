import { type Socket, connect } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

/** A request as it goes over the wire, verbatim: HTTP clients refuse to send much of what a stranger would. */
export interface RawRequest {
  readonly method: string
  readonly path: string
  readonly headers?: readonly string[]
  /** Leaves out the Host that is sent otherwise. */
  readonly noHost?: boolean
  readonly body?: string | Uint8Array | RepeatedBody
  /** Half-closes the connection after the body, which says that nothing more will come. */
  readonly hangUp?: boolean
}

/** A body too large to be built: `chunk` so often, as chunks of Transfer-Encoding where `chunked`. */
export interface RepeatedBody {
  readonly chunk: Uint8Array
  readonly times: number
  readonly chunked: boolean
}

/** `status` 0 means that the server closed without an answer. */
export interface RawResponse {
  readonly status: number
  readonly headers: ReadonlyMap<string, string>
  readonly body: string
  /** Bytes of body sent when the answer began. */
  readonly sent: number
}

const READ_FIRST_MS = 10

/** Sends one request on a connection of its own. @throws when no whole answer comes within `limitMs`. */
export async function sendRaw(host: string, request: RawRequest, limitMs = 10_000): Promise<RawResponse> {
  const { hostname, port } = new URL(`http://${host}`)
  const socket = connect({ host: hostname, port: Number(port) })
  const received: Buffer[] = []
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const limit = setTimeout(() => {
    reject(new Error(`no whole answer within ${limitMs} ms; received ${Buffer.concat(received).toString('latin1')}`))
  }, limitMs)
  socket.on('data', bytes => {
    received.push(bytes)
    if (isWhole(Buffer.concat(received), request.method)) resolve()
  })
  // A server may close before it has read what it refused; what it said before counts.
  socket.on('error', () => resolve())
  socket.on('close', () => resolve())
  try {
    const sent = await writeRequest(socket, host, request, () => received.length > 0)
    await promise
    return { ...parseResponse(Buffer.concat(received)), sent }
  } finally {
    clearTimeout(limit)
    socket.destroy()
  }
}

async function writeRequest(
  socket: Socket,
  host: string,
  { method, path, headers = [], noHost = false, body = '', hangUp = false }: RawRequest,
  isAnswered: () => boolean,
): Promise<number> {
  const own = noHost || headers.some(header => /^host:/i.test(header)) ? [] : [`Host: ${host}`]
  const framed = headers.some(header => /^(?:content-length|transfer-encoding)/i.test(header))
  const length = typeof body === 'string' || body instanceof Uint8Array ? Buffer.from(body).byteLength : undefined
  const framing = framed || length === undefined || length === 0 ? [] : [`Content-Length: ${length}`]
  const lines = [`${method} ${path} HTTP/1.1`, ...own, 'Connection: close', ...headers, ...framing, '', '']
  socket.write(Buffer.from(lines.join('\r\n'), 'latin1'))
  if (typeof body === 'string' || body instanceof Uint8Array) {
    socket.write(body)
    if (hangUp) socket.end()
    return length ?? 0
  }
  const head = Buffer.from(body.chunked ? `${body.chunk.byteLength.toString(16)}\r\n` : '')
  const unit = Buffer.concat([head, body.chunk, Buffer.from(body.chunked ? '\r\n' : '')])
  let sent = 0
  for (let count = 0; count < body.times && !isAnswered() && !socket.destroyed; count++) {
    // A failed write closes a Node socket with the answer unread in it, so the answer gets time to arrive first.
    await delay(READ_FIRST_MS)
    if (isAnswered() || socket.destroyed) break
    if (!socket.write(unit)) await drained(socket)
    sent += body.chunk.byteLength
  }
  if (body.chunked && !isAnswered() && !socket.destroyed) socket.write('0\r\n\r\n')
  return sent
}

async function drained(socket: Socket): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  const events = ['drain', 'close', 'error', 'data'] as const
  for (const event of events) socket.once(event, resolve)
  await promise
  for (const event of events) socket.off(event, resolve)
}

/** Whether an answer is complete by its Content-Length; one without ends with the connection. */
function isWhole(bytes: Buffer, method: string): boolean {
  const end = bytes.indexOf('\r\n\r\n')
  if (end < 0) return false
  const { status, headers } = parseResponse(bytes)
  if (method === 'HEAD' || status < 200 || status === 204 || status === 304) return true
  const length = headers.get('content-length')
  return length !== undefined && bytes.byteLength >= end + 4 + Number(length)
}

function parseResponse(bytes: Buffer): Omit<RawResponse, 'sent'> {
  const text = bytes.toString('latin1')
  const end = text.indexOf('\r\n\r\n')
  if (end < 0) return { status: 0, headers: new Map(), body: '' }
  const [start = '', ...lines] = text.slice(0, end).split('\r\n')
  const headers = new Map(
    lines.map(line => {
      const colon = line.indexOf(':')
      return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()] as const
    }),
  )
  const status = Number(start.split(' ')[1])
  const length = Number(headers.get('content-length') ?? Infinity)
  return { status, headers, body: bytes.subarray(end + 4, end + 4 + length).toString('utf8') }
}
