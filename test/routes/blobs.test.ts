import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, suite, test } from 'node:test'
import { RegistryClient, codeOf, digestOf } from '../support/client.ts'
import { type TestServer, startServer } from '../support/server.ts'

const BYTES = Buffer.from(Array.from({ length: 100 }, (_, index) => index))
const DIGEST = digestOf(BYTES)
const PATH = `/v2/blobs/a/blobs/${DIGEST}`

void suite('blobs', () => {
  let server: TestServer
  let registry: RegistryClient

  before(async () => {
    server = await startServer()
    registry = new RegistryClient(server.url)
    await registry.pushBlob('blobs/a', BYTES)
  })
  after(() => server.stop())

  const read = async (headers: Record<string, string>, method = 'GET'): Promise<Response> =>
    await registry.ask(PATH, { method, headers })

  void test('GET and HEAD name length, digest and type, and promise ranges (spec: Pulling blobs)', async () => {
    const got = await read({})
    const head = await read({}, 'HEAD')
    assert.deepEqual(Buffer.from(await got.arrayBuffer()), BYTES)
    assert.equal((await head.arrayBuffer()).byteLength, 0)
    for (const [name, value] of Object.entries({
      'content-length': '100',
      'content-type': 'application/octet-stream',
      'docker-content-digest': DIGEST,
      'accept-ranges': 'bytes',
      etag: `"${DIGEST}"`,
    })) {
      assert.equal(got.headers.get(name), value, name)
      assert.equal(head.headers.get(name), value, name)
    }
  })

  void test('content is never encoded, whatever codings a client accepts (RFC 9110 section 8.4)', async () => {
    for (const codings of ['gzip', 'zstd;q=1.0, gzip;q=0.8, deflate;q=0.5', 'br', 'identity;q=0']) {
      const got = await read({ 'Accept-Encoding': codings })
      assert.equal(got.headers.get('content-encoding'), null)
      assert.equal(got.headers.get('content-length'), '100')
      assert.deepEqual(Buffer.from(await got.arrayBuffer()), BYTES)
    }
  })

  void test('an empty blob has a length of 0 under both algorithms, and any range of it is 416 (RFC 9110 section 14.1.2)', async () => {
    for (const algorithm of ['sha256', 'sha512'] as const) {
      const digest = await registry.pushBlob('blobs/empty', '', algorithm)
      const got = await registry.ask(`/v2/blobs/empty/blobs/${digest}`)
      assert.equal(got.status, 200)
      assert.equal(got.headers.get('content-length'), '0')
      assert.equal(await got.text(), '')
      const part = await registry.ask(`/v2/blobs/empty/blobs/${digest}`, { headers: { Range: 'bytes=0-0' } })
      assert.equal(part.status, 416)
      await part.text()
    }
  })

  void test('one content under two algorithms is two addresses, each answering with its own digest', async () => {
    for (const algorithm of ['sha256', 'sha512'] as const) {
      const digest = await registry.pushBlob('blobs/two', 'two names', algorithm)
      const got = await registry.ask(`/v2/blobs/two/blobs/${digest}`)
      assert.equal(got.headers.get('docker-content-digest'), digest)
      assert.equal(await got.text(), 'two names')
    }
    const gone = await registry.ask(`/v2/blobs/two/blobs/${digestOf('two names')}`, { method: 'DELETE' })
    assert.equal(gone.status, 202)
    assert.equal((await registry.ask(`/v2/blobs/two/blobs/${digestOf('two names', 'sha512')}`)).status, 200)
  })

  void test('ranges: single, suffix, open, clamped and unsatisfiable (RFC 9110 section 14)', async () => {
    for (const [range, start, end] of [
      ['bytes=10-19', 10, 19],
      ['bytes=-5', 95, 99],
      ['bytes=-500', 0, 99],
      ['bytes=90-', 90, 99],
      ['bytes=90-500', 90, 99],
      ['bytes=0-0', 0, 0],
    ] as const) {
      const part = await read({ Range: range })
      assert.equal(part.status, 206)
      assert.equal(part.headers.get('content-range'), `bytes ${start}-${end}/100`)
      assert.equal(part.headers.get('content-length'), String(end - start + 1))
      assert.equal(part.headers.get('content-type'), 'application/octet-stream')
      assert.deepEqual(Buffer.from(await part.arrayBuffer()), BYTES.subarray(start, end + 1))
    }
    for (const range of ['bytes=100-', 'bytes=50-0', 'bytes=-0']) {
      const outside = await read({ Range: range })
      assert.equal(outside.status, 416)
      assert.equal(outside.headers.get('content-range'), 'bytes */100')
      assert.equal(await codeOf(outside), 'RANGE_INVALID')
    }
  })

  void test('several ranges are one part each, in order, with an exact length (RFC 9110 section 14.6)', async () => {
    const several = await read({ Range: 'bytes=50-51,0-1,-2' })
    assert.equal(several.status, 206)
    const boundary = /^multipart\/byteranges; boundary=([0-9A-Za-z]{1,70})$/.exec(
      several.headers.get('content-type') ?? '',
    )?.[1]
    assert.ok(boundary !== undefined)
    const body = Buffer.from(await several.arrayBuffer())
    assert.equal(body.byteLength, Number(several.headers.get('content-length')))
    const parts = body.toString('latin1').split(`--${boundary}`).slice(1, -1)
    assert.deepEqual(
      parts.map(part => /Content-Range: (.*)\r\n\r\n(..)\r\n$/s.exec(part)?.slice(1, 3)),
      [
        ['bytes 50-51/100', '23'],
        ['bytes 0-1/100', '\0\u0001'],
        ['bytes 98-99/100', 'bc'],
      ],
    )
  })

  void test('ranges that together exceed the blob are answered with the whole of it (RFC 9110 section 14.2)', async () => {
    const whole = await read({ Range: 'bytes=0-90,5-99' })
    assert.equal(whole.status, 200)
    assert.deepEqual(Buffer.from(await whole.arrayBuffer()), BYTES)
  })

  void test('1,024 ranges in one header are answered (containers/storage chunked pulls)', async () => {
    const digest = await registry.pushBlob('blobs/a', randomBytes(1024 * 1024))
    const range = `bytes=${Array.from({ length: 1024 }, (_, index) => `${1_000_000 - index * 900}-${1_000_000 - index * 900}`).join(',')}`
    const answer = await registry.ask(`/v2/blobs/a/blobs/${digest}`, { headers: { Range: range } })
    assert.equal(answer.status, 206)
    assert.equal((await answer.arrayBuffer()).byteLength, Number(answer.headers.get('content-length')))
  })

  void test('a Range on HEAD is ignored (RFC 9110 section 14.2)', async () => {
    for (const range of ['bytes=0-9', 'bytes=500-', 'bytes=0-1,5-6']) {
      const head = await read({ Range: range }, 'HEAD')
      assert.equal(head.status, 200)
      assert.equal(head.headers.get('content-length'), '100')
      assert.equal(head.headers.get('content-range'), null)
    }
  })

  void test('If-Range honours a Range only beside the very entity tag (RFC 9110 section 13.1.5)', async () => {
    const ask = async (ifRange: string, range = 'bytes=0-9'): Promise<number> => {
      const answer = await read({ Range: range, 'If-Range': ifRange })
      const body = await answer.arrayBuffer()
      assert.equal(body.byteLength, answer.status === 206 ? 10 : 100)
      return answer.status
    }
    assert.equal(await ask(`"${DIGEST}"`), 206)
    for (const other of [`W/"${DIGEST}"`, '"other"', DIGEST, 'Wed, 21 Oct 2015 07:28:00 GMT']) {
      assert.equal(await ask(other), 200, other)
      assert.equal(await ask(other, 'bytes=500-'), 200, other)
    }
  })

  void test('If-None-Match spares what the client has: exact, weak, bare, in a list, and * (RFC 9110 section 13.1.2)', async () => {
    for (const tags of [`"${DIGEST}"`, `W/"${DIGEST}"`, DIGEST, `"a", W/"b","${DIGEST}"`, '*']) {
      for (const method of ['GET', 'HEAD']) {
        const answer = await read({ 'If-None-Match': tags, Range: 'bytes=0-1' }, method)
        assert.equal(answer.status, 304, tags)
        assert.equal(answer.headers.get('etag'), `"${DIGEST}"`)
        assert.equal(answer.headers.get('docker-content-digest'), DIGEST)
        assert.equal(await answer.text(), '')
      }
    }
    for (const tags of ['"other"', 'W/"other"', '"*"', ',,']) {
      const answer = await read({ 'If-None-Match': tags })
      assert.equal(answer.status, 200, tags)
      await answer.arrayBuffer()
    }
  })

  void test('If-None-Match: * is no answer for a blob that is not there', async () => {
    const answer = await registry.ask(`/v2/blobs/a/blobs/${digestOf('absent')}`, { headers: { 'If-None-Match': '*' } })
    assert.equal(answer.status, 404)
    assert.equal(await codeOf(answer), 'BLOB_UNKNOWN')
  })

  void test('a blob is invisible in a repository that does not link it (spec: Pulling blobs)', async () => {
    assert.equal((await registry.ask(`/v2/blobs/other/blobs/${DIGEST}`)).status, 404)
    assert.equal((await registry.ask(`/v2/blobs/other/blobs/${DIGEST}`, { method: 'HEAD' })).status, 404)
  })

  void test('a digest in the path may be percent-encoded, and is decoded once (RFC 3986 section 2.4)', async () => {
    assert.equal((await registry.ask(PATH.replace(':', '%3A'), { method: 'HEAD' })).status, 200)
    assert.equal((await registry.ask(PATH.replace(':', '%3a'), { method: 'HEAD' })).status, 200)
    assert.equal((await registry.ask(PATH.replace(':', '%253A'), { method: 'HEAD' })).status, 400)
    assert.equal((await registry.ask(PATH.replace('blobs/a', 'blobs%2Fa'), { method: 'HEAD' })).status, 200)
  })

  void test('a blob that a manifest names cannot be deleted, with the reason (spec: Deleting Blobs)', async () => {
    await registry.pushImage('blobs/used', 'v1')
    const refused = await registry.ask(`/v2/blobs/used/blobs/${digestOf('{}')}`, { method: 'DELETE' })
    assert.equal(refused.status, 405)
    assert.equal(await codeOf(refused), 'UNSUPPORTED')
  })

  void test('a deleted blob is gone at once, here and only here (spec: Deleting Blobs)', async () => {
    for (const name of ['blobs/b', 'blobs/c']) await registry.pushBlob(name, 'deleted')
    const path = `/v2/blobs/b/blobs/${digestOf('deleted')}`
    assert.equal((await registry.ask(path, { method: 'DELETE' })).status, 202)
    assert.equal((await registry.ask(path, { method: 'HEAD' })).status, 404)
    assert.equal((await registry.ask(path, { method: 'DELETE' })).status, 404)
    assert.equal((await registry.ask(path.replace('blobs/b', 'blobs/c'), { method: 'HEAD' })).status, 200)
  })
})
