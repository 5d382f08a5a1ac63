import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type Socket, connect } from 'node:net'
import { after, before, suite, test } from 'node:test'
import { OCI_MANIFEST, RegistryClient } from '../support/client.ts'
import { type TestServer, startServer } from '../support/server.ts'

const MiB = 1024 * 1024
const LIMIT_MS = 60_000

void suite('answers while the body is still arriving: RFC 9112 section 9.6', () => {
  let server: TestServer
  let registry: RegistryClient

  before(async () => {
    server = await startServer()
    registry = new RegistryClient(server.url)
  })
  after(() => server.stop())

  async function open(head: readonly string[]): Promise<Socket> {
    const socket = connect({ host: '127.0.0.1', port: Number(new URL(server.url).port) })
    await once(socket, 'connect')
    socket.write([...head, `Host: ${server.host}`, '', ''].join('\r\n'))
    return socket
  }

  /** Everything the server says until it closes. */
  async function heard(socket: Socket): Promise<string> {
    const chunks: Buffer[] = []
    socket.on('data', chunk => chunks.push(chunk as Buffer))
    socket.resume()
    await once(socket, 'close', { signal: AbortSignal.timeout(LIMIT_MS) })
    return Buffer.concat(chunks).toString('latin1')
  }

  async function wholly(socket: Socket, bytes: Buffer): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    socket.write(bytes, error => (error ? reject(error) : resolve()))
    await promise
  }

  for (const [what, target, status] of [
    ['a manifest that is too large', 'PUT /v2/early/a/manifests/v1', 413],
    ['an upload that is none', 'PATCH /v2/early/a/blobs/uploads/none', 404],
    ['a bad name', 'PUT /v2/EARLY/manifests/v1', 400],
    ['a method nobody offers', 'PUT /v2/early/a/tags/list', 405],
  ] as const) {
    for (const connection of ['keep-alive', 'close']) {
      void test(`a client that reads only after 20 MiB of ${what} gets its ${status} (Connection: ${connection})`, async () => {
        const size = 20 * MiB
        const socket = await open([
          `${target} HTTP/1.1`,
          `Connection: ${connection}`,
          `Content-Length: ${size}`,
          `Content-Type: ${OCI_MANIFEST}`,
        ])
        for (let sent = 0; sent < size; sent += MiB) await wholly(socket, Buffer.alloc(MiB))
        socket.end()
        const said = await heard(socket)
        assert.match(said, new RegExp(`^HTTP/1\\.1 ${status} `))
        assert.match(said, /\{"errors":\[.*\]\}$/)
      })
    }
  }

  void test('40 clients that write 9 MiB before they read all get their 413', async () => {
    const pushes = Array.from({ length: 40 }, async () => {
      const size = 9 * MiB
      const socket = await open(['PUT /v2/early/b/manifests/v1 HTTP/1.1', `Content-Length: ${size}`])
      for (let sent = 0; sent < size; sent += MiB) await wholly(socket, Buffer.alloc(MiB))
      socket.end()
      return (await heard(socket)).slice(0, 12)
    })
    assert.deepEqual(new Set(await Promise.all(pushes)), new Set(['HTTP/1.1 413']))
  })

  void test('the connection is usable after a refused body has ended', async () => {
    const location = await registry.startUpload('early/c')
    const socket = await open([`PATCH ${location} HTTP/1.1`, 'Content-Range: 5-9', 'Content-Length: 5'])
    socket.write('world')
    socket.write(`GET /v2/ HTTP/1.1\r\nHost: ${server.host}\r\nConnection: close\r\n\r\n`)
    const said = await heard(socket)
    assert.match(said, /^HTTP\/1\.1 416 [^]*HTTP\/1\.1 200 OK/)
  })

  void test('a client that never ends its body is told, and then cut off', async () => {
    const socket = await open(['PUT /v2/early/d/manifests/v1 HTTP/1.1', 'Transfer-Encoding: chunked'])
    const chunk = Buffer.concat([Buffer.from(`${MiB.toString(16)}\r\n`), Buffer.alloc(MiB), Buffer.from('\r\n')])
    let said = ''
    let sent = 0
    socket.on('data', bytes => (said += String(bytes)))
    // Cutting off shows as an error of whatever write is on its way.
    socket.on('error', () => {})
    const closed = Promise.withResolvers<void>()
    socket.once('close', closed.resolve)
    const limit = setTimeout(() => socket.destroy(), LIMIT_MS)
    while (!socket.destroyed) {
      await Promise.race([wholly(socket, chunk).catch(() => undefined), closed.promise])
      sent += MiB
    }
    clearTimeout(limit)
    assert.match(said, /^HTTP\/1\.1 413 /)
    assert.ok(sent < 512 * MiB, `cut off only after ${sent} bytes`)
  })
})
