import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readdir, readlink } from 'node:fs/promises'
import { after, before, suite, test } from 'node:test'
import type { BlobStore } from '../../src/storage/blob-store.ts'
import { type TestApp, startApp } from '../support/app.ts'
import { until } from '../support/clients.ts'
import { close, offsetOf, openUpload, patch, pushBlob, sha256 } from '../support/push.ts'
import { openConnection } from '../support/raw-connection.ts'

const IDLE_MS = 1_000
/** More than the socket buffers of both sides hold, so that a reader who stops holds the sender up. */
const LARGE = 48_000_000

void suite('clients that vanish', () => {
  let app: TestApp<BlobStore>
  let digest: string
  const unhandled: unknown[] = []
  const onUnhandled = (reason: unknown): void => void unhandled.push(reason)

  before(async () => {
    process.on('unhandledRejection', onUnhandled)
    app = await startApp({ wrapStore: store => store })
    digest = await pushBlob(app.url, 'abort/download', Buffer.alloc(LARGE, 'x'))
  })
  after(async () => {
    await app.close()
    process.off('unhandledRejection', onUnhandled)
  })

  /** Files of the store that this process, which is the server as well, has open. */
  async function openFiles(): Promise<string[]> {
    const descriptors = await readdir('/proc/self/fd')
    const targets = await Promise.all(descriptors.map(fd => readlink(`/proc/self/fd/${fd}`).catch(() => '')))
    return targets.filter(target => target.startsWith(app.directory))
  }

  const timers = (): number => process.getActiveResourcesInfo().filter(kind => kind === 'Timeout').length

  async function nothingLeft(timersBefore: number): Promise<void> {
    await until('no file of the store is open', async () => (await openFiles()).length === 0)
    await until('no timer is left', async () => timers() <= timersBefore)
    assert.deepEqual(unhandled, [])
    assert.deepEqual(app.strayErrors, [])
  }

  /** Gives the connections that `work` opens a short idle time; those that fetch keeps for later are not closed by it. */
  async function impatient<T>(work: () => Promise<T>): Promise<T> {
    app.server.timeout = IDLE_MS
    try {
      return await work()
    } finally {
      app.server.timeout = 0
    }
  }

  /** A chunk of which only the first half is ever sent. */
  async function halfChunk(location: string, bytes: Uint8Array) {
    const connection = await openConnection(app.port)
    const { pathname } = new URL(location)
    connection.write(`PATCH ${pathname} HTTP/1.1\r\nHost: x\r\nContent-Length: ${bytes.byteLength}\r\n\r\n`)
    connection.write(bytes.subarray(0, bytes.byteLength / 2))
    await until('the chunk is being written', async () => (await openFiles()).length > 0)
    return connection
  }

  for (const how of ['closes', 'resets'] as const) {
    void test(`an upload whose client ${how} the connection goes on at the reported offset (spec: Resuming an upload)`, async () => {
      const before = timers()
      const bytes = randomBytes(600_000)
      const location = await openUpload(app.url, 'abort/upload')
      const connection = await halfChunk(location, bytes)
      if (how === 'closes') connection.socket.end()
      else connection.socket.resetAndDestroy()
      await nothingLeft(before)
      const offset = await offsetOf(location)
      assert.ok(offset > 0 && offset <= 300_000, `the session holds ${offset} bytes`)
      assert.equal((await patch(location, bytes.subarray(offset), offset)).status, 202)
      assert.equal((await close(location, sha256(bytes))).status, 201)
    })
  }

  void test('an upload that falls silent loses its connection and keeps its session (http.idleTimeout)', async () => {
    const before = timers()
    const bytes = randomBytes(600_000)
    const location = await openUpload(app.url, 'abort/silent')
    const connection = await impatient(() => halfChunk(location, bytes))
    await until('the server closed the connection', async () => connection.socket.destroyed)
    await nothingLeft(before)
    const offset = await offsetOf(location)
    assert.ok(offset > 0 && offset <= 300_000)
    assert.equal((await close(location, sha256(bytes), bytes.subarray(offset))).status, 201)
  })

  const ranges = Array.from({ length: 6 }, (_, n) => `${n * 7_000_000}-${n * 7_000_000 + 6_000_000}`)
  for (const [what, range] of [
    ['a download', ''],
    ['a download of one range', 'Range: bytes=10-\r\n'],
    ['a download of several ranges', `Range: bytes=${ranges.join(',')}\r\n`],
  ] as const) {
    for (const how of ['closes', 'resets', 'stops reading'] as const) {
      void test(`${what} whose client ${how} leaves no file, no timer and no rejection behind`, async () => {
        const before = timers()
        const download = async () => {
          const opened = await openConnection(app.port)
          opened.write(`GET /v2/abort/download/blobs/${digest} HTTP/1.1\r\nHost: x\r\n${range}\r\n`)
          await opened.received(100_000)
          opened.socket.pause()
          return opened
        }
        const connection = how === 'stops reading' ? await impatient(download) : await download()
        await until('the blob is being sent', async () => (await openFiles()).length > 0)
        if (how === 'closes') connection.socket.destroy()
        if (how === 'resets') connection.socket.resetAndDestroy()
        await nothingLeft(before)
        connection.socket.destroy()
      })
    }
  }

  void test('a client that is gone before its answer begins costs nothing (several ranges)', async () => {
    const before = timers()
    for (let round = 0; round < 50; round++) {
      const connection = await openConnection(app.port)
      connection.write(`GET /v2/abort/download/blobs/${digest} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-9,20-29\r\n\r\n`)
      connection.socket.resetAndDestroy()
    }
    // What fetch keeps open for later is idle.
    app.server.closeIdleConnections()
    await until('every connection is over', async () => {
      return await new Promise(resolve => app.server.getConnections((_, count) => resolve(count === 0)))
    })
    await nothingLeft(before)
  })

  void test('a connection is used again after an early error answer to a body (RFC 9112 section 9.3)', async () => {
    const connection = await openConnection(app.port)
    const body = Buffer.alloc(2_000_000, 'z')
    for (const [path, status] of [
      ['/v2/abort/none/blobs/uploads/00000000-0000-0000-0000-000000000000', 404],
      ['/v2/ABORT/blobs/uploads/00000000-0000-0000-0000-000000000000', 400],
    ] as const) {
      connection.write(`PATCH ${path} HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.byteLength}\r\n\r\n`)
      connection.write(body)
      assert.equal((await connection.answer()).status, status)
      connection.write('GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n')
      assert.equal((await connection.answer()).status, 200)
    }
    connection.socket.destroy()
  })
})
