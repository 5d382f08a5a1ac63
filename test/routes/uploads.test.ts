import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect } from 'node:net'
import { after, before, suite, test } from 'node:test'
import { RegistryClient, codeOf, digestOf } from '../support/client.ts'
import { sendRaw } from '../support/raw-http.ts'
import { type TestServer, startServer } from '../support/server.ts'

void suite('upload sessions', () => {
  let server: TestServer
  let registry: RegistryClient

  before(async () => {
    server = await startServer()
    registry = new RegistryClient(server.url)
  })
  after(() => server.stop())

  const patch = async (location: string, body: Uint8Array<ArrayBuffer> | string, range?: string): Promise<Response> =>
    await registry.ask(location, {
      method: 'PATCH',
      body,
      headers: range === undefined ? {} : { 'Content-Range': range },
    })

  void test('a session starts with a path-absolute Location, its id and an empty range (spec: Pushing blobs)', async () => {
    const started = await registry.ask('/v2/start/a/blobs/uploads/', { method: 'POST' })
    assert.equal(started.status, 202)
    assert.match(started.headers.get('location') ?? '', /^\/v2\/start\/a\/blobs\/uploads\/[^/?]+$/)
    assert.equal(started.headers.get('range'), '0-0')
    assert.equal(started.headers.get('content-length'), '0')
    assert.ok(started.headers.get('location')?.endsWith(started.headers.get('docker-upload-uuid') ?? '-'))
  })

  void test('PATCH answers 202 with `Range: 0-<last>`, without a unit, and a body of no bytes (spec: Pushing a blob in chunks)', async () => {
    const location = await registry.startUpload('patch/a')
    const taken = await patch(location, 'hello')
    assert.equal(taken.status, 202)
    assert.equal(taken.headers.get('range'), '0-4')
    assert.equal(taken.headers.get('location'), location)
    assert.equal(taken.headers.get('content-length'), '0')
    assert.equal(await taken.text(), '')
  })

  void test('the status of a session is 204 with its range, by GET and HEAD alike', async () => {
    const location = await registry.startUpload('status/a')
    await patch(location, 'hello')
    for (const method of ['GET', 'HEAD']) {
      const status = await registry.ask(location, { method })
      assert.equal(status.status, 204)
      assert.equal(status.headers.get('range'), '0-4')
      assert.equal(status.headers.get('location'), location)
    }
  })

  void test('an empty session reports 0-0, which every client can parse (opencontainers/distribution-spec#577)', async () => {
    const location = await registry.startUpload('status/b')
    assert.equal((await registry.ask(location)).headers.get('range'), '0-0')
  })

  void test('a streamed PATCH needs neither Content-Length nor Content-Range (spec: Pushing a blob in chunks)', async () => {
    const location = await registry.startUpload('stream/a')
    const chunks = ['hel', 'lo'].map(text => `${text.length.toString(16)}\r\n${text}\r\n`)
    const streamed = await sendRaw(server.host, {
      method: 'PATCH',
      path: location,
      headers: ['Transfer-Encoding: chunked'],
      body: `${chunks.join('')}0\r\n\r\n`,
    })
    assert.equal(streamed.status, 202)
    assert.equal(streamed.headers.get('range'), '0-4')
    const closed = await registry.ask(`${location}?digest=${digestOf('hello')}`, { method: 'PUT' })
    assert.equal(closed.status, 201)
  })

  void test('an upload goes on at the reported offset after the client vanished in the middle (spec: Resuming a blob upload)', async () => {
    const location = await registry.startUpload('resume/a')
    const bytes = randomBytes(300_000)
    const socket = connect({ host: '127.0.0.1', port: Number(new URL(server.url).port) })
    socket.write(`PATCH ${location} HTTP/1.1\r\nHost: x\r\nContent-Length: ${bytes.length}\r\n\r\n`)
    socket.write(bytes.subarray(0, 100_000))
    await once(socket, 'connect')
    socket.resume()
    socket.end()
    await once(socket, 'close')
    let offset = 0
    while (offset === 0) {
      const status = await registry.ask(location)
      assert.equal(status.status, 204)
      offset = Number(/^0-(\d+)$/.exec(status.headers.get('range') ?? '')?.[1] ?? 0)
    }
    const rest = await patch(location, bytes.subarray(offset + 1), `${offset + 1}-${bytes.length - 1}`)
    assert.equal(rest.status, 202)
    assert.equal((await registry.ask(`${location}?digest=${digestOf(bytes)}`, { method: 'PUT' })).status, 201)
  })

  for (const [what, method] of [
    ['a chunk out of order', 'PATCH'],
    ['a last chunk out of order', 'PUT'],
  ] as const) {
    void test(`${what} is 416 with the present range, changes nothing, and the session goes on (spec: Pushing a blob in chunks)`, async () => {
      const location = await registry.startUpload('chunks/a')
      const target = method === 'PUT' ? `${location}?digest=${digestOf('hello')}` : location
      const wrong = async (range: string): Promise<void> => {
        const refused = await registry.ask(target, { method, body: 'world', headers: { 'Content-Range': range } })
        assert.equal(refused.status, 416)
        assert.match(refused.headers.get('range') ?? '', /^0-\d+$/)
        assert.equal(await codeOf(refused), 'RANGE_INVALID')
      }
      await wrong('5-9')
      assert.equal((await patch(location, 'hello', '0-4')).status, 202)
      await wrong('0-4')
      await wrong('6-10')
      assert.equal((await registry.ask(location)).headers.get('range'), '0-4')
      assert.equal((await registry.ask(`${location}?digest=${digestOf('hello')}`, { method: 'PUT' })).status, 201)
    })
  }

  void test('a PUT may carry the last chunk (spec: Pushing a blob in chunks)', async () => {
    const location = await registry.startUpload('last/a')
    await patch(location, 'hello ', '0-5')
    const closed = await registry.ask(`${location}?digest=${digestOf('hello world')}`, {
      method: 'PUT',
      body: 'world',
      headers: { 'Content-Range': '6-10' },
    })
    assert.equal(closed.status, 201)
    assert.equal(closed.headers.get('docker-content-digest'), digestOf('hello world'))
    const got = await registry.ask(closed.headers.get('location') ?? '')
    assert.equal(await got.text(), 'hello world')
  })

  void test('a session without any bytes closes as the empty blob, under both algorithms', async () => {
    for (const algorithm of ['sha256', 'sha512'] as const) {
      const digest = digestOf('', algorithm)
      const closed = await registry.ask(`${await registry.startUpload('empty/a')}?digest=${digest}`, { method: 'PUT' })
      assert.equal(closed.status, 201)
      assert.equal(closed.headers.get('docker-content-digest'), digest)
      const head = await registry.ask(`/v2/empty/a/blobs/${digest}`, { method: 'HEAD' })
      assert.equal(head.headers.get('content-length'), '0')
    }
  })

  void test('sha512 may be named for the first time when the session closes, whatever way the bytes came', async () => {
    const bytes = 'named late'
    const digest = digestOf(bytes, 'sha512')
    const monolithic = await registry.startUpload('late/a')
    const patched = await registry.startUpload('late/b')
    const chunked = await registry.startUpload('late/c')
    await patch(patched, bytes)
    await patch(chunked, bytes.slice(0, 3), '0-2')
    await patch(chunked, bytes.slice(3), `3-${bytes.length - 1}`)
    const put = async (location: string, body: string | null): Promise<Response> =>
      await registry.ask(`${location}?digest=${digest}`, { method: 'PUT', body })
    for (const closed of [await put(monolithic, bytes), await put(patched, null), await put(chunked, null)]) {
      assert.equal(closed.status, 201)
      assert.equal(closed.headers.get('docker-content-digest'), digest)
      assert.equal(await (await registry.ask(closed.headers.get('location') ?? '')).text(), bytes)
    }
  })

  void test('a hint of the algorithm is taken, and an algorithm nobody supports is 400 (spec: Pushing blobs)', async () => {
    const location = await registry.startUpload('hint/a', '?digest-algorithm=sha512')
    const closed = await registry.ask(`${location}?digest=${digestOf('x', 'sha512')}`, { method: 'PUT', body: 'x' })
    assert.equal(closed.status, 201)
    const refused = await registry.ask('/v2/hint/a/blobs/uploads/?digest-algorithm=md5', { method: 'POST' })
    assert.equal(refused.status, 400)
    assert.equal(await codeOf(refused), 'DIGEST_INVALID')
  })

  void test('one POST with a digest and a body makes a blob (spec: Single POST)', async () => {
    for (const algorithm of ['sha256', 'sha512'] as const) {
      for (const body of ['at once', '']) {
        const digest = digestOf(body, algorithm)
        const posted = await registry.ask(`/v2/single/a/blobs/uploads/?digest=${digest}`, { method: 'POST', body })
        assert.equal(posted.status, 201)
        assert.equal(posted.headers.get('docker-content-digest'), digest)
        assert.equal(await (await registry.ask(posted.headers.get('location') ?? '')).text(), body)
      }
    }
  })

  void test('a digest that is not the content is 400 DIGEST_INVALID on every way to push, and makes no blob', async () => {
    for (const algorithm of ['sha256', 'sha512'] as const) {
      const digest = digestOf('other', algorithm)
      const patched = await registry.startUpload('wrong/a')
      await patch(patched, 'this')
      const chunked = await registry.startUpload('wrong/a')
      await patch(chunked, 'th', '0-1')
      const monolithic = await registry.startUpload('wrong/a')
      const empty = await registry.startUpload('wrong/a')
      const put = { method: 'PUT' }
      const refusals = [
        await registry.ask(`/v2/wrong/a/blobs/uploads/?digest=${digest}`, { method: 'POST', body: 'this' }),
        await registry.ask(`${monolithic}?digest=${digest}`, { ...put, body: 'this' }),
        await registry.ask(`${patched}?digest=${digest}`, put),
        await registry.ask(`${chunked}?digest=${digest}`, { ...put, body: 'is', headers: { 'Content-Range': '2-3' } }),
        await registry.ask(`${empty}?digest=${digest}`, put),
      ]
      for (const refused of refusals) {
        assert.equal(refused.status, 400)
        assert.equal(await codeOf(refused), 'DIGEST_INVALID')
      }
      assert.equal((await registry.ask(`/v2/wrong/a/blobs/${digest}`)).status, 404)
    }
  })

  void test('a chunk that goes on after its Content-Range is 416 with the present Range, and what is too much is not kept', async () => {
    const location = await registry.startUpload('excess/a')
    await patch(location, 'hello')
    const chunks = [' wor', 'ld, and more'].map(text => `${text.length.toString(16)}\r\n${text}\r\n`)
    for (const [method, path] of [
      ['PATCH', location],
      ['PUT', `${location}?digest=${digestOf('hello world, and more')}`],
    ] as const) {
      const refused = await sendRaw(server.host, {
        method,
        path,
        headers: ['Transfer-Encoding: chunked', 'Content-Range: 5-10'],
        body: `${chunks.join('')}0\r\n\r\n`,
      })
      assert.equal(refused.status, 416)
      assert.match(refused.body, /RANGE_INVALID/)
      const { headers } = await registry.ask(location)
      assert.equal(headers.get('range'), '0-4')
      assert.equal(refused.headers.get('range'), '0-4')
    }
    assert.equal((await patch(location, ' world', '5-10')).headers.get('range'), '0-10')
    const closed = await registry.ask(`${location}?digest=${digestOf('hello world')}`, { method: 'PUT' })
    assert.equal(closed.status, 201)
  })

  void test('closing twice with a valid location is 201 both times', async () => {
    const location = await registry.startUpload('twice/a')
    for (const body of ['twice', null]) {
      const closed = await registry.ask(`${location}?digest=${digestOf('twice')}`, { method: 'PUT', body })
      assert.equal(closed.status, 201)
    }
  })

  void test('a cancelled session is 204, then 404 (spec: Canceling a blob upload)', async () => {
    const location = await registry.startUpload('cancel/a')
    await patch(location, 'hello')
    assert.equal((await registry.ask(location, { method: 'DELETE' })).status, 204)
    for (const method of ['GET', 'PATCH', 'DELETE']) {
      const gone = await registry.ask(location, { method })
      assert.equal(gone.status, 404)
      assert.equal(await codeOf(gone), 'BLOB_UPLOAD_UNKNOWN')
    }
  })

  void test('a location keeps what a client adds to its query, and the digest counts that comes last', async () => {
    const location = await registry.startUpload('query/a')
    const digest = digestOf('query').replace(':', '%3A')
    const closed = await registry.ask(`${location}?state=a%2Bb&digest=${digest}`, { method: 'PUT', body: 'query' })
    assert.equal(closed.status, 201)
  })

  void test('a mount links a blob of another repository, with an encoded name and digest as well (spec: Mounting a blob)', async () => {
    const digest = await registry.pushBlob('mount/from', 'mounted')
    const query = `mount=${digest.replace(':', '%3A')}&from=mount%2Ffrom&origin=docker.io`
    const mounted = await registry.ask(`/v2/mount/to/blobs/uploads/?${query}`, { method: 'POST' })
    assert.equal(mounted.status, 201)
    assert.equal(mounted.headers.get('docker-content-digest'), digest)
    assert.equal(await (await registry.ask(mounted.headers.get('location') ?? '')).text(), 'mounted')
  })

  void test('a mount without from finds the blob wherever it is (spec: Mounting a blob)', async () => {
    const digest = await registry.pushBlob('mount/from', 'anonymous')
    const mounted = await registry.ask(`/v2/mount/any/blobs/uploads/?mount=${digest}`, { method: 'POST' })
    assert.equal(mounted.status, 201)
    assert.equal((await registry.ask(`/v2/mount/any/blobs/${digest}`, { method: 'HEAD' })).status, 200)
  })

  void test('a mount that cannot be is a session that takes the blob (spec: Mounting a blob)', async () => {
    const digest = digestOf('not yet')
    for (const from of ['mount/none', '..%2Fetc', 'mount/from']) {
      const location = await registry.startUpload('mount/late', `?mount=${digest}&from=${from}`)
      const closed = await registry.ask(`${location}?digest=${digest}`, { method: 'PUT', body: 'not yet' })
      assert.equal(closed.status, 201)
    }
  })

  void test('what a push was told is read back at once: 201, then HEAD, GET and mount', async () => {
    for (let round = 0; round < 20; round++) {
      const bytes = randomBytes(100)
      const digest = await registry.pushBlob('fresh/a', bytes)
      const path = `/v2/fresh/a/blobs/${digest}`
      assert.equal((await registry.ask(path, { method: 'HEAD' })).status, 200)
      assert.deepEqual(Buffer.from(await (await registry.ask(path)).arrayBuffer()), bytes)
      const mount = await registry.ask(`/v2/fresh/b/blobs/uploads/?mount=${digest}&from=fresh/a`, { method: 'POST' })
      assert.equal(mount.status, 201)
    }
  })

  void test('two chunks at one offset: one is taken, the other is 416', async () => {
    const location = await registry.startUpload('race/b')
    const outcomes = await Promise.all([patch(location, 'first', '0-4'), patch(location, 'other', '0-4')])
    assert.deepEqual(outcomes.map(outcome => String(outcome.status)).toSorted(), ['202', '416'])
  })

  void test('50 uploads of one blob at once all succeed', async () => {
    const bytes = randomBytes(50_000)
    await Promise.all(Array.from({ length: 50 }, () => registry.pushBlob('race/a', bytes)))
  })
})
