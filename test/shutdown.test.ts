import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { type ClientRequest, type IncomingMessage, Agent, request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { until } from './support/clients.ts'
import { type TestDatabase, type TestServer, createDatabase, startServer } from './support/server.ts'

const digestOf = (bytes: Uint8Array): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`
const MIB = 2 ** 20
/** More than the sockets' buffers of both sides take. */
const LARGE = randomBytes(48 * MIB)

let work: string
let database: TestDatabase | undefined
let server: TestServer
beforeEach(async () => {
  work = await mkdtemp(join(tmpdir(), 'berth-test-shutdown-'))
  database = await createDatabase()
})
afterEach(async () => {
  server.kill()
  await server.stop().catch(() => undefined)
  await database?.drop()
  await rm(work, { recursive: true, force: true })
})

/** Starts the registry on this test's data, again after it has ended. */
async function start(env: Record<string, string> = {}): Promise<void> {
  server = await startServer({
    dataDir: join(work, 'data'),
    env,
    ...(database === undefined ? {} : { databaseUrl: database.url }),
  })
}

const ask = (path: string, init?: RequestInit): Promise<Response> => fetch(`${server.url}${path}`, init)

async function ended(): Promise<number | null> {
  if (server.process.exitCode === null) await once(server.process, 'exit')
  return server.process.exitCode
}

/** Sends SIGTERM and waits until the server has said that it stops: later connections are refused. */
async function terminate(): Promise<void> {
  server.process.kill('SIGTERM')
  await until('the server stops accepting', async () =>
    server.log.some(line => String(line['msg']).startsWith('stopping')),
  )
}

async function openUpload(): Promise<string> {
  return (await ask('/v2/a/b/blobs/uploads/', { method: 'POST' })).headers.get('location') ?? ''
}

/** Begins a PATCH of `length` bytes and sends the first of them; resolves when the server has some on disk. */
async function beginPatch(path: string, first: Uint8Array, length: number): Promise<ClientRequest> {
  const patch = request(`${server.url}${path}`, { method: 'PATCH', headers: { 'Content-Length': length } })
  patch.on('error', () => undefined)
  patch.write(first)
  await until('the transfer has begun', async () => {
    const port = server.log.find(line => line['msg'] === 'listening')?.['metricsUrl']
    return /^berth_blob_received_bytes_total [1-9]/m.test(await (await fetch(String(port))).text())
  })
  return patch
}

void describe('SIGTERM', () => {
  void it('lets an upload finish, answers it with Connection: close (RFC 9112 9.6), and ends with 0', async () => {
    await start()
    const bytes = randomBytes(2 * MIB)
    const path = await openUpload()
    const patch = await beginPatch(path, bytes.subarray(0, MIB), bytes.byteLength)
    await terminate()
    await assert.rejects(ask('/v2/'), 'a new connection is refused')
    patch.end(bytes.subarray(MIB))
    const [answer] = (await once(patch, 'response')) as [IncomingMessage]

    assert.equal(answer.statusCode, 202)
    assert.equal(answer.headers.connection, 'close')
    assert.equal(await ended(), 0)

    await start()
    const closed = await ask(`${path}?digest=${digestOf(bytes)}`, { method: 'PUT' })
    assert.equal(closed.status, 201, 'the session goes on after the restart')
  })

  void it('cuts an upload that takes too long, and what was received can be resumed at its offset', async () => {
    await start({ BERTH_HTTP_SHUTDOWN_TIMEOUT: '200ms' })
    const bytes = randomBytes(2 * MIB)
    const path = await openUpload()
    const patch = await beginPatch(path, bytes.subarray(0, MIB), bytes.byteLength)
    const cut = new Promise(resolve => patch.once('close', resolve))
    await terminate()
    await cut
    assert.equal(await ended(), 0)

    await start()
    const range = (await ask(path)).headers.get('range') ?? ''
    const offset = Number(range.split('-')[1]) + 1
    assert.equal(offset, MIB, 'every byte that was received is there')
    const rest = bytes.subarray(offset)
    const headers = { 'Content-Range': `${offset}-${bytes.byteLength - 1}` }
    const closed = await ask(`${path}?digest=${digestOf(bytes)}`, { method: 'PUT', body: rest, headers })
    assert.equal(closed.status, 201)
  })

  void it('lets a download finish and ends with 0', async () => {
    await start()
    const answer = await beginDownload()
    await terminate()
    const parts: Buffer[] = []
    for await (const part of answer) parts.push(part as Buffer)

    assert.equal(digestOf(Buffer.concat(parts)), digestOf(LARGE))
    assert.equal(await ended(), 0)
  })

  void it('cuts a download that takes too long, so that the client sees it is not whole', async () => {
    await start({ BERTH_HTTP_SHUTDOWN_TIMEOUT: '200ms' })
    const answer = await beginDownload()
    await terminate()
    assert.equal(await ended(), 0)

    await assert.rejects(async () => {
      for await (const part of answer) assert.ok(part)
    }, /aborted|ECONNRESET/)
  })

  void it('closes connections that wait for a next request at once', async () => {
    await start({ BERTH_HTTP_SHUTDOWN_TIMEOUT: '1h' })
    const agent = new Agent({ keepAlive: true })
    const first = request(`${server.url}/v2/`, { agent }).end()
    const [answer] = (await once(first, 'response')) as [IncomingMessage]
    answer.resume()
    await once(answer, 'end')
    await terminate()

    assert.equal(await ended(), 0)
    agent.destroy()
  })

  void it('with http.shutdownDelay, goes on answering while /readyz says 503: a balancer has to notice first', async () => {
    await start({ BERTH_HTTP_SHUTDOWN_DELAY: '1m' })
    assert.equal((await ask('/readyz')).status, 200)
    server.process.kill('SIGTERM')
    await until('the process is not ready', async () => (await ask('/readyz')).status === 503)

    assert.equal((await ask('/readyz')).headers.get('retry-after'), '5')
    assert.equal((await ask('/healthz')).status, 200)
    assert.equal((await ask('/v2/a/b/blobs/uploads/', { method: 'POST' })).status, 202)
  })

  void it('ends with 0 when http.shutdownDelay is over', async () => {
    await start({ BERTH_HTTP_SHUTDOWN_DELAY: '100ms' })
    server.process.kill('SIGTERM')

    assert.equal(await ended(), 0)
  })

  void it('that comes again ends the process at once', async () => {
    await start({ BERTH_HTTP_SHUTDOWN_TIMEOUT: '1h' })
    const patch = await beginPatch(await openUpload(), randomBytes(MIB), 2 * MIB)
    await terminate()
    const exit = once(server.process, 'exit')
    // What comes within half a second is Ctrl-C seen twice; a person presses again until it helps.
    const again = setInterval(() => server.process.kill('SIGTERM'), 100)
    await exit
    clearInterval(again)
    patch.destroy()

    assert.equal(server.process.exitCode, 143)
  })
})

/** Begins to read a large blob, and stops at its first bytes. */
async function beginDownload(): Promise<IncomingMessage> {
  const digest = digestOf(LARGE)
  await ask(`/v2/a/b/blobs/uploads/?digest=${digest}`, { method: 'POST', body: LARGE })
  const get = request(`${server.url}/v2/a/b/blobs/${digest}`).end()
  const [answer] = (await once(get, 'response')) as [IncomingMessage]
  assert.equal(answer.statusCode, 200)
  return answer
}
