import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import type { ServerResponse } from 'node:http'
import { after, afterEach, before, suite, test } from 'node:test'
import { type BlobAsk, type BlobUpstream, startBlobUpstream } from '../support/blob-upstream.ts'
import { RegistryClient, digestOf } from '../support/client.ts'
import { until } from '../support/clients.ts'
import { type TestServer, startServer } from '../support/server.ts'

const MiB = 1024 * 1024

void suite('fetching blobs from an upstream: RFC 9110 sections 9.3.2 and 14', () => {
  let upstream: BlobUpstream
  let server: TestServer
  let mirror: RegistryClient

  before(async () => {
    upstream = await startBlobUpstream()
    server = await startServer({
      env: {
        BERTH_MIRROR_MAX_FETCHES: '2',
        BERTH_MIRROR_UPSTREAMS: JSON.stringify({ m: { url: upstream.url, allowPrivate: true, namespaces: [] } }),
      },
    })
    mirror = new RegistryClient(server.url)
  })
  afterEach(() => {
    upstream.gate = Infinity
    upstream.answer = () => false
    upstream.asked.splice(0)
  })
  after(async () => {
    await server.stop()
    await upstream.close()
  })

  function offer(bytes: number): { readonly content: Buffer; readonly digest: string; readonly path: string } {
    const content = randomBytes(bytes)
    const digest = digestOf(content)
    upstream.blobs.set(digest, content)
    return { content, digest, path: `/v2/m/a/blobs/${digest}` }
  }
  const asked = (): string[] =>
    upstream.asked.map(({ method, range }) => (range === undefined ? method : `${method} ${range}`))
  const bodyOf = async (path: string): Promise<Buffer> => Buffer.from(await (await mirror.ask(path)).arrayBuffer())
  /** Answers the first request for all, and lets the others through to the upstream. */
  const once = (reply: (ask: BlobAsk, res: ServerResponse) => void): void => {
    let turn = 0
    upstream.answer = (ask, res) => {
      turn += 1
      if (turn === 1) reply(ask, res)
      return turn === 1
    }
  }
  /** Cuts the first transfer in the middle, and answers the second, which asks for the rest, otherwise. */
  const cutThen = (content: Buffer, reply: (ask: BlobAsk, res: ServerResponse) => void): void => {
    let turn = 0
    upstream.answer = (ask, res) => {
      turn += 1
      if (turn === 2) reply(ask, res)
      if (turn !== 1) return turn === 2
      res.writeHead(200, { 'Content-Length': String(content.byteLength) })
      res.write(content.subarray(0, MiB), () => res.destroy())
      return true
    }
  }

  void test('HEAD of a blob that is not here costs the upstream a HEAD and no transfer', async () => {
    const { content, digest, path } = offer(5_000)
    const answer = await mirror.ask(path, { method: 'HEAD' })
    assert.deepEqual(
      [answer.status, answer.headers.get('content-length'), answer.headers.get('docker-content-digest')],
      [200, String(content.byteLength), digest],
    )
    assert.deepEqual(asked(), ['HEAD'])
    const absent = await mirror.ask(`/v2/m/a/blobs/${digestOf('absent')}`, { method: 'HEAD' })
    assert.equal(absent.status, 404)
  })

  void test('a client that has the blob already is told so without a transfer (RFC 9110 section 13.1.2)', async () => {
    const { digest, path } = offer(5_000)
    const answer = await mirror.ask(path, { headers: { 'If-None-Match': `"${digest}"` } })
    assert.equal(answer.status, 304)
    assert.deepEqual(asked(), ['HEAD'])
  })

  void test('where the upstream knows no HEAD, its GET says how large the blob is', async () => {
    const { content, path } = offer(5_000)
    upstream.answer = ({ method }, res) => {
      if (method === 'HEAD') res.writeHead(405).end()
      return method === 'HEAD'
    }
    const answer = await mirror.ask(path, { method: 'HEAD' })
    assert.deepEqual([answer.status, answer.headers.get('content-length')], [200, String(content.byteLength)])
    assert.ok((await bodyOf(path)).equals(content))
  })

  void test('HEAD of a blob on its way asks the upstream nothing', async () => {
    const { content, path } = offer(2 * MiB)
    upstream.gate = MiB
    const pull = bodyOf(path)
    await until('the blob is on its way', async () => upstream.asked.length === 1)
    // It may be asked before the answer to the first has begun.
    const answer = await mirror.ask(path, { headers: { Range: 'bytes=0-9' } })
    assert.equal(answer.status, 206)
    const head = await mirror.ask(path, { method: 'HEAD' })
    assert.equal(head.headers.get('content-length'), String(content.byteLength))
    upstream.gate = Infinity
    assert.ok((await pull).equals(content))
    assert.deepEqual(asked(), ['GET'])
  })

  void test('content is asked for as it is, not compressed on the way (RFC 9110 section 12.5.3)', async () => {
    const { path } = offer(100)
    await mirror.ask(path, { method: 'HEAD' })
    await bodyOf(path)
    assert.deepEqual(
      upstream.asked.map(({ headers }) => headers['accept-encoding']),
      ['identity', 'identity'],
    )
  })

  const parts = [
    ['another part than was asked for', 206, (size: number) => ({ 'Content-Range': `bytes 0-99/${size}` })],
    ['a part of something larger', 206, (size: number) => ({ 'Content-Range': `bytes ${MiB}-${size}/${size}` })],
    ['a part and does not say which', 206, () => ({})],
    ['that there is no such part', 416, (size: number) => ({ 'Content-Range': `bytes */${size}` })],
  ] as const
  for (const [what, status, headersOf] of parts) {
    void test(`an upstream that answers ${what} is asked for the whole, and the rest is taken (RFC 9110 section 14.4)`, async () => {
      const { content, path } = offer(2 * MiB)
      cutThen(content, (_ask, res) => {
        res.writeHead(status, headersOf(content.byteLength))
        res.end(randomBytes(100))
      })
      assert.ok((await bodyOf(path)).equals(content))
      assert.deepEqual([asked()[0], asked()[1]?.slice(0, 10), asked()[2]], ['GET', 'GET bytes=', 'GET'])
      assert.equal(asked().length, 3)
    })
  }

  void test('an upstream that answers a part by the whole gives the rest of it (RFC 9110 section 14.2)', async () => {
    const { content, path } = offer(2 * MiB)
    cutThen(content, (_ask, res) => res.writeHead(200, { 'Content-Length': String(content.byteLength) }).end(content))
    assert.ok((await bodyOf(path)).equals(content))
    assert.equal(asked().length, 2)
  })

  void test('a part whose end is missing is gone on from', async () => {
    const { content, path } = offer(2 * MiB)
    cutThen(content, ({ range }, res) => {
      const start = Number(/\d+/.exec(range ?? '')?.[0])
      const end = start + 99
      res.writeHead(206, { 'Content-Range': `bytes ${start}-${end}/*` }).end(content.subarray(start, end + 1))
    })
    assert.ok((await bodyOf(path)).equals(content))
    assert.equal(asked().length, 3)
  })

  void test('an answer that is neither the whole nor a part is no blob', async () => {
    const { content, path } = offer(1_000)
    once((_ask, res) => res.writeHead(203, { 'Content-Length': '4' }).end('none'))
    assert.equal((await mirror.ask(path)).status, 503)
    assert.ok((await bodyOf(path)).equals(content))
  })

  void test('no more blobs are fetched at a time than may be; the others wait for their turn', async () => {
    const blobs = Array.from({ length: 5 }, () => offer(2 * MiB))
    upstream.gate = MiB
    const pulls = blobs.map(async ({ path }) => await bodyOf(path))
    await until('as many as may be are under way', async () => upstream.asked.length === 2)
    // Every request of ours has been heard by now: one that is answered came after them.
    assert.equal((await mirror.ask('/v2/m/a/blobs/sha256:0')).status, 400)
    assert.equal(upstream.asked.length, 2)
    upstream.gate = Infinity
    for (const [index, bytes] of (await Promise.all(pulls)).entries()) {
      assert.ok(bytes.equals(blobs[index]?.content ?? Buffer.of()))
    }
    assert.equal(upstream.asked.length, 5)
  })
})
