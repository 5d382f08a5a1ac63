import type { Readable } from 'node:stream'
import { UpstreamFailure } from './upstream-failure.ts'

/** The whole of a body that is known to be small. @throws UpstreamFailure `refused` as soon as it is larger than `maxBytes` */
export async function readBytes(body: Readable, maxBytes: number, host: string): Promise<Buffer> {
  const chunks: Buffer[] = []
  let size = 0
  try {
    for await (const chunk of body) {
      const bytes = chunk as Buffer
      size += bytes.byteLength
      // Leaving the loop destroys the body, and with it the connection.
      if (size > maxBytes) throw new UpstreamFailure('refused', `${host} sends more than ${maxBytes} bytes`)
      chunks.push(bytes)
    }
  } catch (error) {
    if (error instanceof UpstreamFailure) throw error
    throw new UpstreamFailure('failed', `${host} broke off`, { cause: error })
  }
  return Buffer.concat(chunks, size)
}

/** The same as text. */
export async function readText(body: Readable, maxBytes: number, host: string): Promise<string> {
  return (await readBytes(body, maxBytes, host)).toString('utf8')
}

/** Lets go of a body that nobody reads, and of its connection. */
export function discard(body: Readable): void {
  // It tells of its own end as an error.
  body.on('error', () => undefined)
  body.destroy()
}
