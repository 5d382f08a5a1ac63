// A program for the network of an isolated engine: `node steady-uploads.ts ORIGIN REPOSITORY STOP-FILE`, with the
// credentials in CREDENTIALS. It uploads small blobs, several at once, each request sent once, until the file is there;
// it prints how many it uploaded, and every request that was not answered as it should be.
import { createHash, randomBytes } from 'node:crypto'
import { exists } from './clients.ts'

const WORKERS = 4

const [origin = '', repository = '', stopFile = ''] = process.argv.slice(2)
const authorization = `Basic ${Buffer.from(process.env['CREDENTIALS'] ?? '').toString('base64')}`
const faults: string[] = []
let uploads = 0

/** Sends a request on a connection that is kept. @returns the Location; undefined where the answer is not `expected`. */
async function send(method: string, path: string, expected: number, body?: Buffer): Promise<URL | undefined> {
  try {
    const headers = { authorization, 'content-type': 'application/octet-stream' }
    const answer = await fetch(new URL(path, origin), { method, headers, body: body ?? null })
    await answer.arrayBuffer()
    if (answer.status === expected) return new URL(answer.headers.get('location') ?? '', origin)
    faults.push(`${method} ${answer.status}`)
  } catch (error) {
    faults.push(`${method} ${String(error)} ${error instanceof Error ? String(error.cause) : ''}`)
  }
  return undefined
}

async function work(): Promise<void> {
  while (!(await exists(stopFile))) {
    const blob = randomBytes(20_000)
    const opened = await send('POST', `/v2/${repository}/blobs/uploads/`, 202)
    const sent = opened && (await send('PATCH', opened.href, 202, blob))
    sent?.searchParams.set('digest', `sha256:${createHash('sha256').update(blob).digest('hex')}`)
    if (sent !== undefined && (await send('PUT', sent.href, 201)) !== undefined) uploads++
  }
}

await Promise.all(Array.from({ length: WORKERS }, work))
process.stdout.write(`${uploads > 0 ? 'some' : 'no'} uploads, faults: [${faults.join(', ')}]\n`)
