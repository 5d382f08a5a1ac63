import { Writable } from 'node:stream'

/** All that `send` writes to the stream it is given. */
export async function received(send: (to: Writable) => Promise<void>): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  await send(
    new Writable({
      write(chunk: Uint8Array, _encoding, done) {
        chunks.push(Uint8Array.from(chunk))
        done()
      },
    }),
  )
  return Buffer.concat(chunks)
}
