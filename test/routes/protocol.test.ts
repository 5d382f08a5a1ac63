import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect } from 'node:net'
import { after, before, suite, test } from 'node:test'
import { type TestServer, startServer } from '../support/server.ts'

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
const INDEX = 'application/vnd.oci.image.index.v1+json'

const sha256 = (bytes: Uint8Array | string): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`

interface ErrorBody {
  readonly errors: readonly { readonly code: string }[]
}

async function codeOf(response: Response): Promise<string | undefined> {
  return ((await response.json()) as ErrorBody).errors[0]?.code
}

void suite('the protocol over HTTP', () => {
  let server: TestServer

  before(async () => {
    server = await startServer()
  })
  after(() => server.stop())

  const ask = (path: string, init?: RequestInit): Promise<Response> =>
    fetch(`${server.url}${path}`, { redirect: 'manual', ...init })

  async function startUpload(name: string): Promise<string> {
    const started = await ask(`/v2/${name}/blobs/uploads/`, { method: 'POST' })
    assert.equal(started.status, 202)
    return started.headers.get('location') ?? ''
  }

  async function pushBlob(name: string, bytes: Uint8Array<ArrayBuffer>): Promise<string> {
    const digest = sha256(bytes)
    const closed = await ask(`${await startUpload(name)}?digest=${digest}`, { method: 'PUT', body: bytes })
    assert.equal(closed.status, 201)
    return digest
  }

  async function pushImage(name: string, reference: string, more: object = {}): Promise<string> {
    const config = await pushBlob(name, Buffer.from('{}'))
    const body = JSON.stringify({
      schemaVersion: 2,
      mediaType: MANIFEST,
      config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: config, size: 2 },
      layers: [],
      ...more,
    })
    const put = await ask(`/v2/${name}/manifests/${reference === '' ? sha256(body) : reference}`, {
      method: 'PUT',
      body,
      headers: { 'Content-Type': MANIFEST },
    })
    assert.equal(put.status, 201)
    return sha256(body)
  }

  void test('an upload goes on at the reported offset after the client vanished in the middle (spec: Resuming a blob upload)', async () => {
    const location = await startUpload('resume/a')
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
      const status = await ask(location)
      assert.equal(status.status, 204)
      offset = Number(/^0-(\d+)$/.exec(status.headers.get('range') ?? '')?.[1] ?? 0)
    }
    const rest = await ask(location, {
      method: 'PATCH',
      body: bytes.subarray(offset + 1),
      headers: { 'Content-Range': `${offset + 1}-${bytes.length - 1}` },
    })
    assert.equal(rest.status, 202)
    assert.equal((await ask(`${location}?digest=${sha256(bytes)}`, { method: 'PUT' })).status, 201)
  })

  void test('a chunk out of order is 416, changes nothing, and the session goes on (spec: Pushing a blob in chunks)', async () => {
    const location = await startUpload('chunks/a')
    const wrong = await ask(location, { method: 'PATCH', body: 'world', headers: { 'Content-Range': '5-9' } })
    assert.equal(wrong.status, 416)
    assert.equal(
      (await ask(location, { method: 'PATCH', body: 'hello', headers: { 'Content-Range': '0-4' } })).status,
      202,
    )
    assert.equal((await ask(`${location}?digest=${sha256('hello')}`, { method: 'PUT' })).status, 201)
  })

  void test('closing twice with a valid location is 201 both times', async () => {
    const location = await startUpload('twice/a')
    for (const body of ['twice', null]) {
      const closed = await ask(`${location}?digest=${sha256('twice')}`, { method: 'PUT', body })
      assert.equal(closed.status, 201)
    }
  })

  void test('a wrong digest is 400 DIGEST_INVALID and makes no blob', async () => {
    const digest = sha256('other')
    const closed = await ask(`${await startUpload('wrong/a')}?digest=${digest}`, { method: 'PUT', body: 'this' })
    assert.equal(closed.status, 400)
    assert.equal(await codeOf(closed), 'DIGEST_INVALID')
    assert.equal((await ask(`/v2/wrong/a/blobs/${digest}`)).status, 404)
  })

  void test('ranges: single, suffix, open, clamped, unsatisfiable and several (RFC 9110 section 14)', async () => {
    const bytes = Buffer.from(Array.from({ length: 100 }, (_, index) => index))
    const digest = await pushBlob('ranges/a', bytes)
    const read = (range: string): Promise<Response> =>
      ask(`/v2/ranges/a/blobs/${digest}`, { headers: { Range: range } })
    for (const [range, start, end] of [
      ['bytes=10-19', 10, 19],
      ['bytes=-5', 95, 99],
      ['bytes=90-', 90, 99],
      ['bytes=90-500', 90, 99],
    ] as const) {
      const part = await read(range)
      assert.equal(part.status, 206)
      assert.equal(part.headers.get('content-range'), `bytes ${start}-${end}/100`)
      assert.deepEqual(Buffer.from(await part.arrayBuffer()), bytes.subarray(start, end + 1))
    }
    for (const range of ['bytes=100-', 'bytes=50-0']) {
      const outside = await read(range)
      assert.equal(outside.status, 416)
      assert.equal(outside.headers.get('content-range'), 'bytes */100')
      await outside.arrayBuffer()
    }
    const several = await read('bytes=0-1,10-12')
    assert.equal(several.status, 206)
    const boundary = /boundary=(\S+)/.exec(several.headers.get('content-type') ?? '')?.[1]
    const body = Buffer.from(await several.arrayBuffer())
    assert.equal(body.byteLength, Number(several.headers.get('content-length')))
    assert.equal(body.toString('latin1').split(`--${boundary}`).length, 4)
    assert.equal((await read('bytes=0-90,5-99')).status, 200)
  })

  void test('1,024 ranges in one header are answered (containers/storage chunked pulls)', async () => {
    const digest = await pushBlob('ranges/b', randomBytes(1024 * 1024))
    const range = `bytes=${Array.from({ length: 1024 }, (_, index) => `${1_000_000 - index * 900}-${1_000_000 - index * 900}`).join(',')}`
    const answer = await ask(`/v2/ranges/b/blobs/${digest}`, { headers: { Range: range } })
    assert.equal(answer.status, 206)
    assert.equal((await answer.arrayBuffer()).byteLength, Number(answer.headers.get('content-length')))
  })

  void test('a manifest keeps its bytes and its exact Content-Type, and HEAD says the same as GET', async () => {
    const digest = await pushImage('exact/a', 'v1')
    const got = await ask('/v2/exact/a/manifests/v1')
    const head = await ask('/v2/exact/a/manifests/v1', { method: 'HEAD' })
    assert.equal(got.headers.get('content-type'), MANIFEST)
    assert.equal(sha256(new Uint8Array(await got.arrayBuffer())), digest)
    for (const name of ['content-type', 'content-length', 'docker-content-digest', 'etag']) {
      assert.equal(head.headers.get(name), got.headers.get(name), name)
    }
    assert.equal((await ask('/v2/exact/a/manifests/v1', { headers: { 'If-None-Match': `"${digest}"` } })).status, 304)
  })

  void test('a manifest that names blobs which are not there is refused with an entry for each', async () => {
    const missing = [sha256('a'), sha256('b')]
    const layers = missing.map(digest => ({ mediaType: 'application/vnd.oci.image.layer.v1.tar', digest, size: 1 }))
    const config = await pushBlob('missing/a', Buffer.from('{}'))
    const body = JSON.stringify({ schemaVersion: 2, config: { mediaType: 'a/b', digest: config, size: 2 }, layers })
    const put = await ask('/v2/missing/a/manifests/v1', { method: 'PUT', body, headers: { 'Content-Type': MANIFEST } })
    assert.equal(put.status, 400)
    const { errors } = (await put.json()) as { errors: { code: string; detail: { digest: string } }[] }
    assert.deepEqual(
      errors.map(error => error.detail.digest),
      missing,
    )
    assert.ok(errors.every(error => error.code === 'MANIFEST_BLOB_UNKNOWN'))
  })

  void test('a blob is invisible in a repository that does not link it (spec: Pulling blobs)', async () => {
    const digest = await pushBlob('private/a', randomBytes(100))
    assert.equal((await ask(`/v2/private/b/blobs/${digest}`)).status, 404)
    const mounted = await ask(`/v2/private/b/blobs/uploads/?mount=${digest}&from=private%2Fa`, { method: 'POST' })
    assert.equal(mounted.status, 201)
    assert.equal((await ask(`/v2/private/b/blobs/${digest}`)).status, 200)
  })

  void test('a blob that a manifest names cannot be deleted, with the reason', async () => {
    await pushImage('inuse/a', 'v1')
    const refused = await ask(`/v2/inuse/a/blobs/${sha256('{}')}`, { method: 'DELETE' })
    assert.equal(refused.status, 405)
    assert.equal(await codeOf(refused), 'UNSUPPORTED')
  })

  void test('deleting a manifest takes its tags along at once, and a push brings it back', async () => {
    const digest = await pushImage('delete/a', 'v1')
    assert.equal((await ask(`/v2/delete/a/manifests/${digest}`, { method: 'DELETE' })).status, 202)
    assert.equal((await ask('/v2/delete/a/manifests/v1')).status, 404)
    assert.equal((await ask(`/v2/delete/a/manifests/${digest}`)).status, 404)
    assert.equal(await pushImage('delete/a', 'v1'), digest)
    assert.equal((await ask('/v2/delete/a/manifests/v1')).status, 200)
  })

  void test('tags are listed in byte order, page by page (spec: Listing Tags)', async () => {
    const tags = ['0.1.2', '0.1.20', 'A', 'a', 'a-b', 'a.b', 'a_b']
    for (const tag of tags.toReversed()) await pushImage('list/a', tag)
    const listed: string[] = []
    let path: string | undefined = '/v2/list/a/tags/list?n=2'
    while (path !== undefined) {
      const page = await ask(path)
      listed.push(...((await page.json()) as { tags: string[] }).tags)
      path = /^<([^>]+)>; rel="next"$/.exec(page.headers.get('link') ?? '')?.[1]
    }
    assert.deepEqual(listed, tags)
  })

  void test('referrers list what names the subject, filter by artifact type, and page (spec: Listing Referrers)', async () => {
    const subject = { mediaType: MANIFEST, digest: sha256('no such subject'), size: 3 }
    for (const artifactType of ['a/x', 'a/y']) await pushImage('refer/a', '', { subject, artifactType })
    const all = await ask(`/v2/refer/a/referrers/${subject.digest}`)
    assert.equal(all.headers.get('content-type'), INDEX)
    assert.equal(((await all.json()) as { manifests: unknown[] }).manifests.length, 2)
    const some = await ask(`/v2/refer/a/referrers/${subject.digest}?artifactType=a%2Fx`)
    assert.equal(some.headers.get('oci-filters-applied'), 'artifactType')
    assert.equal(((await some.json()) as { manifests: unknown[] }).manifests.length, 1)
    const first = await ask(`/v2/refer/a/referrers/${subject.digest}?n=1`)
    assert.ok(first.headers.get('link')?.includes('last='))
  })

  void test('path components may be called like endpoints: names are parsed from the right', async () => {
    await pushImage('v2/blobs/manifests/tags', 'list')
    assert.equal((await ask('/v2/v2/blobs/manifests/tags/manifests/list')).status, 200)
  })

  void test('50 uploads of one blob and 50 pushes of one tag at once all succeed', async () => {
    const bytes = randomBytes(50_000)
    await Promise.all(Array.from({ length: 50 }, () => pushBlob('race/a', bytes)))
    await pushBlob('race/a', Buffer.from('{}'))
    const digests = await Promise.all(
      Array.from({ length: 50 }, (_, index) => pushImage('race/a', 'latest', { annotations: { n: String(index) } })),
    )
    const now = await ask('/v2/race/a/manifests/latest', { method: 'HEAD' })
    assert.ok(digests.includes(now.headers.get('docker-content-digest') ?? ''))
  })

  void test('two chunks at one offset: one is taken, the other is 416', async () => {
    const location = await startUpload('race/b')
    const chunk = (body: string): Promise<Response> =>
      ask(location, { method: 'PATCH', body, headers: { 'Content-Range': '0-4' } })
    const outcomes = await Promise.all([chunk('first'), chunk('other')])
    assert.deepEqual(outcomes.map(outcome => String(outcome.status)).toSorted(), ['202', '416'])
  })

  for (const [what, method, path, status, code] of [
    ['an upper-case name', 'GET', '/v2/A/tags/list', 400, 'NAME_INVALID'],
    ['a name that climbs', 'GET', '/v2/a%2f..%2fb/tags/list', 400, 'NAME_INVALID'],
    ['a name with NUL', 'GET', '/v2/a%00b/tags/list', 400, 'NAME_INVALID'],
    ['a name of 300 characters', 'GET', `/v2/${'a'.repeat(300)}/tags/list`, 400, 'NAME_INVALID'],
    ['a digest that is none', 'GET', '/v2/a/blobs/sha256:baddigeststring', 400, 'DIGEST_INVALID'],
    ['an algorithm that is none', 'GET', `/v2/a/blobs/md5:${'0'.repeat(32)}`, 400, 'DIGEST_INVALID'],
    ['an upper-case digest', 'HEAD', `/v2/a/manifests/sha256:${'A'.repeat(64)}`, 400, undefined],
    ['a tag of 129 characters', 'GET', `/v2/a/manifests/${'a'.repeat(129)}`, 400, 'TAG_INVALID'],
    ['a negative page size', 'GET', '/v2/a/tags/list?n=-1', 400, 'PAGINATION_NUMBER_INVALID'],
    ['a page size that is no number', 'GET', '/v2/_catalog?n=abc', 400, 'PAGINATION_NUMBER_INVALID'],
    ['an upload that is none', 'PATCH', '/v2/a/blobs/uploads/nothing', 404, 'BLOB_UPLOAD_UNKNOWN'],
    [
      'a close without a digest',
      'PUT',
      '/v2/a/blobs/uploads/00000000-0000-0000-0000-000000000000',
      400,
      'DIGEST_INVALID',
    ],
    ['a hash hint nobody knows', 'POST', '/v2/a/blobs/uploads/?digest-algorithm=md5', 400, 'DIGEST_INVALID'],
    ['a method nobody offers', 'DELETE', '/v2/a/tags/list', 405, 'UNSUPPORTED'],
    ['a path of nothing', 'GET', '/v2/a', 404, 'NAME_UNKNOWN'],
    ['a body that is no manifest', 'PUT', '/v2/a/manifests/v1', 400, 'MANIFEST_INVALID'],
  ] as const) {
    void test(`${what} is ${status} ${code ?? ''} with the spec's error body`, async () => {
      const answer = await ask(path, { method })
      assert.equal(answer.status, status)
      if (code !== undefined) assert.equal(await codeOf(answer), code)
    })
  }

  void test('a manifest of 100 MB is 413 before it has arrived', async () => {
    const socket = connect({ host: '127.0.0.1', port: Number(new URL(server.url).port) })
    socket.write(`PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n`)
    const [answer] = (await once(socket, 'data')) as [Buffer]
    assert.match(answer.toString('latin1'), /^HTTP\/1\.1 413 /)
    socket.destroy()
  })
})
