import { once } from 'node:events'
import { type Socket, connect } from 'node:net'

/** One connection over which requests are written by hand, one after the other. */
export interface RawConnection {
  readonly socket: Socket
  write(bytes: string | Uint8Array): void
  /** The next whole answer: its status line's number and its headers, lower-case. @throws when the server closes first. */
  answer(): Promise<{ readonly status: number; readonly headers: ReadonlyMap<string, string>; readonly body: string }>
  /** Resolves when at least `bytes` bytes have come that no answer took. */
  received(bytes: number): Promise<void>
}

/** Connects to a port of this machine. */
export async function openConnection(port: number): Promise<RawConnection> {
  const socket = connect({ host: '127.0.0.1', port })
  await once(socket, 'connect')
  let buffered = Buffer.alloc(0)
  let ended: Error | undefined
  let wake: () => void = () => {}
  socket.on('data', (bytes: Buffer) => {
    buffered = Buffer.concat([buffered, bytes])
    wake()
  })
  socket.on('error', () => undefined)
  socket.on('close', () => {
    ended = new Error(`the server closed the connection after: ${buffered.toString('latin1').slice(0, 500)}`)
    wake()
  })
  const more = async (): Promise<void> => {
    if (ended !== undefined) throw ended
    await new Promise<void>(resolve => {
      wake = resolve
    })
  }
  return {
    socket,
    write: bytes => void socket.write(bytes),
    async received(bytes) {
      while (buffered.byteLength < bytes) await more()
    },
    async answer() {
      let end = buffered.indexOf('\r\n\r\n')
      for (; end < 0; end = buffered.indexOf('\r\n\r\n')) await more()
      const [start = '', ...lines] = buffered.subarray(0, end).toString('latin1').split('\r\n')
      const headers = new Map(
        lines.map(line => {
          const colon = line.indexOf(':')
          return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()] as const
        }),
      )
      const length = Number(headers.get('content-length') ?? 0)
      while (buffered.byteLength < end + 4 + length) await more()
      const body = buffered.subarray(end + 4, end + 4 + length).toString('utf8')
      buffered = buffered.subarray(end + 4 + length)
      return { status: Number(start.split(' ')[1]), headers, body }
    },
  }
}
