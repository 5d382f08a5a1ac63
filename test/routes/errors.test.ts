import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { connect } from 'node:net'
import { after, before, suite, test } from 'node:test'
import { RegistryClient, digestOf } from '../support/client.ts'
import { type RawRequest, sendRaw } from '../support/raw-http.ts'
import { type TestServer, startServer } from '../support/server.ts'

/** What differs between answers anyhow, or belongs to the connection. */
const HOP: ReadonlySet<string> = new Set(['date', 'connection', 'keep-alive'])
const UNKNOWN = `sha256:${'0'.repeat(64)}`

void suite('refusals', () => {
  let server: TestServer
  let registry: RegistryClient

  before(async () => {
    server = await startServer()
    registry = new RegistryClient(server.url)
    await registry.pushBlob('errors/a', 'known')
  })
  after(() => server.stop())

  for (const [what, method, path, status, code] of [
    ['an upper-case name', 'GET', '/v2/A/tags/list', 400, 'NAME_INVALID'],
    ['a digest that is none', 'GET', '/v2/a/blobs/sha256:baddigeststring', 400, 'DIGEST_INVALID'],
    ['a tag of 129 characters', 'GET', `/v2/a/manifests/${'a'.repeat(129)}`, 400, 'TAG_INVALID'],
    ['a blob that is not there', 'GET', `/v2/errors/a/blobs/${UNKNOWN}`, 404, 'BLOB_UNKNOWN'],
    ['a blob of an unknown repository', 'GET', `/v2/errors/none/blobs/${UNKNOWN}`, 404, 'BLOB_UNKNOWN'],
    ['a manifest that is not there', 'GET', '/v2/errors/a/manifests/none', 404, 'MANIFEST_UNKNOWN'],
    ['an upload that is none', 'PATCH', '/v2/a/blobs/uploads/nothing', 404, 'BLOB_UPLOAD_UNKNOWN'],
    ['the tags of an unknown repository', 'GET', '/v2/errors/none/tags/list', 404, 'NAME_UNKNOWN'],
    ['a page size that is no number', 'GET', '/v2/_catalog?n=abc', 400, 'PAGINATION_NUMBER_INVALID'],
    ['a hash hint nobody knows', 'POST', '/v2/a/blobs/uploads/?digest-algorithm=md5', 400, 'DIGEST_INVALID'],
    ['a method nobody offers', 'DELETE', '/v2/a/tags/list', 405, 'UNSUPPORTED'],
    ['a path of nothing', 'GET', '/v2/a', 404, 'NAME_UNKNOWN'],
    ['a body that is no manifest', 'PUT', '/v2/a/manifests/v1', 400, 'MANIFEST_INVALID'],
    ['a malformed escape in a query', 'GET', '/v2/errors/a/tags/list?last=%zz', 400, 'UNSUPPORTED'],
    ['a query that is no UTF-8', 'GET', '/v2/errors/a/tags/list?last=%ff', 400, 'UNSUPPORTED'],
  ] as const) {
    void test(`${what} is ${status} ${code} in the spec's body, of an exact length and type (spec: Error Codes)`, async () => {
      const answer = await registry.ask(path, { method })
      const text = await answer.text()
      assert.equal(answer.status, status)
      assert.equal(answer.headers.get('content-type'), 'application/json')
      assert.equal(answer.headers.get('content-length'), String(Buffer.byteLength(text)))
      const { errors, ...rest } = JSON.parse(text) as { errors: { code: string; message: string }[] }
      assert.deepEqual(rest, {})
      assert.deepEqual(
        errors.map(error => [error.code, typeof error.message]),
        [[code, 'string']],
      )
    })
  }

  void test('405 names the methods that the path does take (RFC 9110 section 15.5.6)', async () => {
    await registry.pushImage('errors/used', 'v1')
    for (const [method, path, allowed] of [
      ['DELETE', '/v2/errors/a/tags/list', 'GET, HEAD'],
      ['POST', '/v2/errors/a/manifests/v1', 'DELETE, GET, HEAD, PUT'],
      ['DELETE', `/v2/errors/used/blobs/${digestOf('{}')}`, 'GET, HEAD'],
      ['PROPFIND', '/v2/', 'GET, HEAD'],
    ] as const) {
      const refused = await registry.ask(path, { method })
      assert.equal(refused.status, 405)
      assert.equal(refused.headers.get('allow')?.split(', ').toSorted().join(', '), allowed)
      await refused.arrayBuffer()
    }
  })

  for (const path of [
    `/v2/errors/a/blobs/${UNKNOWN}`,
    '/v2/errors/a/manifests/none',
    '/v2/errors/a/manifests/sha256:x',
    '/v2/A/manifests/v1',
    '/v2/nothing',
  ]) {
    void test(`HEAD ${path.slice(0, 60)} is refused with the headers of GET and no body (RFC 9110 section 9.3.2)`, async () => {
      const id = { 'X-Request-Id': 'the-same-request' }
      const got = await registry.ask(path, { headers: id })
      const head = await registry.ask(path, { method: 'HEAD', headers: id })
      assert.equal(head.status, got.status)
      const told = (answer: Response): unknown =>
        [...answer.headers].filter(([name]) => !HOP.has(name)).toSorted(([a], [b]) => (a < b ? -1 : 1))
      assert.deepEqual(told(head), told(got))
      assert.equal(head.headers.get('content-length'), String((await got.text()).length))
      assert.equal(await head.text(), '')
    })
  }

  void test('GET /v2/ is 200 with {}, and says which API this is (spec: Determining Support)', async () => {
    const answer = await registry.ask('/v2/')
    assert.equal(answer.status, 200)
    assert.equal(answer.headers.get('docker-distribution-api-version'), 'registry/2.0')
    assert.equal(answer.headers.get('content-type'), 'application/json')
    assert.equal(await answer.text(), '{}')
  })

  void test('every answer names the API and has a request id: the client’s where it is one, else a fresh one', async () => {
    for (const path of ['/v2/', `/v2/errors/a/blobs/${digestOf('known')}`, '/v2/none/tags/list', '/nothing']) {
      const fresh = await registry.ask(path)
      const given = await registry.ask(path, { headers: { 'X-Request-Id': 'client-id-1' } })
      const forged = await registry.ask(path, { headers: { 'X-Request-Id': 'a b"c' } })
      for (const answer of [fresh, given, forged]) {
        assert.equal(answer.headers.get('docker-distribution-api-version'), 'registry/2.0')
        await answer.arrayBuffer()
      }
      assert.equal(given.headers.get('x-request-id'), 'client-id-1')
      assert.match(fresh.headers.get('x-request-id') ?? '', /^[0-9a-f-]{36}$/)
      assert.match(forged.headers.get('x-request-id') ?? '', /^[0-9a-f-]{36}$/)
    }
  })

  void test('no answer sets a cookie, allows another origin, or leads elsewhere', async () => {
    for (const path of ['/v2/', '/v2/none/tags/list', `/v2/none/referrers/${UNKNOWN}`]) {
      const answer = await registry.ask(path, { headers: { Origin: 'https://elsewhere.example', Accept: 'text/html' } })
      assert.equal(answer.headers.get('set-cookie'), null)
      // Would make containers/image ask for signatures of a kind that is no more.
      assert.equal(answer.headers.get('x-registry-supports-signatures'), null)
      assert.equal(answer.headers.get('access-control-allow-origin'), null)
      assert.equal(answer.headers.get('location'), null)
      assert.match(answer.headers.get('content-type') ?? '', /^application\/(?:vnd\.oci\.image\.index\.v1\+)?json$/)
      await answer.arrayBuffer()
    }
  })

  void test('an idle connection is kept longer than Go clients keep theirs, so none meets a closing one (RFC 9112 section 9.5)', async () => {
    const answer = await registry.ask('/v2/')
    const seconds = Number(/timeout=(\d+)/.exec(answer.headers.get('keep-alive') ?? '')?.[1])
    await answer.arrayBuffer()
    assert.ok(seconds > 120, String(seconds))
  })

  void test('Expect: 100-continue is answered before the body is sent (RFC 9110 section 10.1.1)', async () => {
    const answer = await sendRaw(server.host, {
      method: 'PUT',
      path: '/v2/errors/a/manifests/v1',
      headers: ['Expect: 100-continue', 'Content-Length: 2'],
    })
    assert.equal(answer.status, 100)
  })

  void test('a client that expects 100-continue is not told to send what is refused, and the connection ends (RFC 9110 section 10.1.1)', async () => {
    for (const [method, path] of [
      ['PUT', '/v2/Errors/manifests/v1'],
      ['PATCH', '/v2/errors/a/blobs/uploads/none'],
      ['PUT', '/v2/errors/a/manifests/v1?tag=-'],
    ] as const) {
      const answer = await sendRaw(server.host, {
        method,
        path,
        headers: ['Expect: 100-continue', 'Content-Length: 2'],
      })
      assert.ok(answer.status >= 400 && answer.status < 500, `${path}: ${answer.status}`)
      assert.equal(answer.headers.get('connection'), 'close')
    }
  })

  void test('a client that waited for 100-continue keeps its connection (RFC 9110 section 10.1.1)', async () => {
    const socket = connect({ host: '127.0.0.1', port: Number(new URL(server.url).port) })
    socket.setEncoding('latin1')
    let heard = ''
    socket.on('data', text => (heard += text))
    const until = async (pattern: RegExp): Promise<void> => {
      while (!pattern.test(heard)) await once(socket, 'data', { signal: AbortSignal.timeout(20_000) })
      heard = ''
    }
    try {
      const head = ['POST /v2/errors/expect/blobs/uploads/?digest=XX HTTP/1.1', `Host: ${server.host}`]
      const digest = `sha256:${createHash('sha256').update('ok').digest('hex')}`
      const request = [...head, 'Expect: 100-continue', 'Content-Length: 2', '', ''].join('\r\n')
      for (let turn = 0; turn < 2; turn += 1) {
        socket.write(request.replace('XX', digest))
        await until(/^HTTP\/1\.1 100 Continue\r\n\r\n/)
        socket.write('ok')
        await until(/^HTTP\/1\.1 201 [^]*connection: keep-alive/i)
      }
    } finally {
      socket.destroy()
    }
  })

  const wire: readonly (readonly [string, RawRequest, number])[] = [
    ['a request that is no HTTP', { method: 'HELO', path: 'there' }, 400],
    ['no Host', { method: 'GET', path: '/v2/', noHost: true }, 400],
    ['two Hosts', { method: 'GET', path: '/v2/', headers: ['Host: a', 'Host: b'] }, 400],
    ['a header of 100,000 characters', { method: 'GET', path: '/v2/', headers: [`X: ${'a'.repeat(100_000)}`] }, 431],
    ['an expectation nobody knows', { method: 'PATCH', path: '/v2/', headers: ['Expect: miracles'], body: 'a' }, 417],
    ['CONNECT', { method: 'CONNECT', path: 'registry.example:443' }, 405],
    ['a lower-case method', { method: 'get', path: '/v2/' }, 400],
    [
      'both framings at once',
      {
        method: 'PATCH',
        path: '/v2/',
        headers: ['Content-Length: 4', 'Transfer-Encoding: chunked'],
        body: '0\r\n\r\n',
      },
      400,
    ],
  ]
  for (const [what, request, status] of wire) {
    void test(`${what} is ${status} with the spec's error body, though no route sees it (RFC 9112; spec: Error Codes)`, async () => {
      const answer = await sendRaw(server.host, request)
      assert.equal(answer.status, status)
      assert.equal(answer.headers.get('content-type'), 'application/json')
      assert.equal(answer.headers.get('docker-distribution-api-version'), 'registry/2.0')
      const { errors } = JSON.parse(answer.body) as { errors: { code: string }[] }
      assert.deepEqual(
        errors.map(error => error.code),
        ['UNSUPPORTED'],
      )
    })
  }

  void test('a request target in absolute form is taken like its path (RFC 9112 section 3.2.2)', async () => {
    const answer = await sendRaw(server.host, { method: 'GET', path: `http://${server.host}/v2/` })
    assert.equal(answer.status, 200)
    assert.equal(answer.body, '{}')
  })
})
