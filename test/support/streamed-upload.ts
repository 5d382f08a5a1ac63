// A program for the network of an isolated engine: `node streamed-upload.ts ORIGIN REPOSITORY METRICS-URL...`, with the
// credentials in CREDENTIALS. It sends half of a chunk, waits until a registry behind the proxy says that it receives an
// upload, and only then sends the rest; it prints the status and the Range of the answer.
import { until } from './clients.ts'

const CHUNK_BYTES = 1024 * 1024

const [origin = '', repository = '', ...metrics] = process.argv.slice(2)
const authorization = `Basic ${Buffer.from(process.env['CREDENTIALS'] ?? '').toString('base64')}`
const isReceived = Promise.withResolvers<void>()

async function* chunk(): AsyncGenerator<Buffer> {
  yield Buffer.alloc(CHUNK_BYTES / 2)
  await isReceived.promise
  yield Buffer.alloc(CHUNK_BYTES / 2)
}

async function receives(url: string): Promise<boolean> {
  return /^berth_upload_transfers [1-9]/m.test(await (await fetch(url)).text())
}

const begun = await fetch(`${origin}/v2/${repository}/blobs/uploads/`, { method: 'POST', headers: { authorization } })
const location = new URL(begun.headers.get('location') ?? '', origin)
const headers = { authorization, 'content-type': 'application/octet-stream' }
const sent = fetch(location, { method: 'PATCH', headers, duplex: 'half', body: ReadableStream.from(chunk()) })
await until('a process receives the upload', async () => (await Promise.all(metrics.map(receives))).includes(true))
isReceived.resolve()
const { status, headers: answered } = await sent
await fetch(new URL(answered.get('location') ?? '', origin), { method: 'DELETE', headers: { authorization } })
process.stdout.write(`${status} ${answered.get('range')}\n`)
