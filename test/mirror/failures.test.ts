import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { type Server, createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, suite, test } from 'node:test'
import { makeCertificate } from '../support/certificate.ts'
import { OCI_MANIFEST, RegistryClient, digestOf, imageOf } from '../support/client.ts'
import { type TestServer, startServer } from '../support/server.ts'
import { type UpstreamProxy, type Whim, startUpstreamProxy } from '../support/upstream-proxy.ts'

/** The table of the documentation, "What happens when the upstream …". */
void suite('an upstream that does not give what it was asked for (goharbor/harbor#19257)', () => {
  let origin: TestServer
  let upstream: RegistryClient
  let proxy: UpstreamProxy
  let tls: Server
  let directory: string
  let server: TestServer
  let mirror: RegistryClient
  let digest: string
  const image = imageOf({ annotations: { over: 'TLS' } })

  before(async () => {
    origin = await startServer()
    upstream = new RegistryClient(origin.url)
    proxy = await startUpstreamProxy(origin.url)
    digest = await upstream.pushImage('team/here', 'v1')
    directory = await mkdtemp(join(tmpdir(), 'berth-test-'))
    const certificate = makeCertificate()
    await writeFile(join(directory, 'ca.pem'), certificate.cert)
    tls = createServer(certificate, (_req, res) => {
      res.setHeader('Content-Type', OCI_MANIFEST)
      res.end(JSON.stringify(image))
    })
    await new Promise<void>(done => tls.listen(0, '127.0.0.1', done))
    const url = `https://127.0.0.1:${(tls.address() as AddressInfo).port}`
    const common = { allowPrivate: true, namespaces: [], tagTtl: '0s' }
    server = await startServer({
      env: {
        // The slowest machine answers in this time, so that what is served stale is so for another reason.
        BERTH_MIRROR_PATIENCE: '30s',
        BERTH_MIRROR_UPSTREAMS: JSON.stringify({
          far: { ...common, url: proxy.url },
          strange: { ...common, url },
          known: { ...common, url, ca: join(directory, 'ca.pem') },
        }),
      },
    })
    mirror = new RegistryClient(server.url)
    assert.equal((await mirror.ask('/v2/far/team/here/manifests/v1')).status, 200)
  })
  afterEach(() => {
    proxy.whim = () => undefined
  })
  after(async () => {
    await server.stop()
    await proxy.close()
    tls.closeAllConnections()
    tls.close()
    await rm(directory, { recursive: true })
    await origin.stop()
  })

  const json = { 'Content-Type': 'application/json' }
  const elsewhere = { status: 307, headers: { Location: 'http://elsewhere.berth.test/' } }
  const table: readonly (readonly [string, Whim, number, RegExp])[] = [
    ['closes the connection', 'cut', 503, /UNAVAILABLE.*did not answer/],
    ['answers 500', { status: 500 }, 503, /UNAVAILABLE.*answered 500/],
    ['answers 503 and when to come back', { status: 503, headers: { 'Retry-After': '1' } }, 503, /answered 503/],
    ['answers 429', { status: 429, headers: { 'Retry-After': '1' }, body: '{}' }, 429, /TOOMANYREQUESTS/],
    ['answers 401', { status: 401 }, 403, /DENIED.*login/],
    ['answers 403', { status: 403 }, 403, /DENIED.*credentials/],
    ['answers 400', { status: 400 }, 502, /UNAVAILABLE.*answered 400/],
    ['leads to a stranger', elsewhere, 502, /redirects to elsewhere/],
    ['sends no manifest', { status: 200, headers: json, body: '<html>' }, 503, /sent what is no manifest/],
  ]
  for (const [index, [what, whim, status, message]] of table.entries()) {
    void test(`${what}: a tag is served as it was, with a warning, what is not here is ${status}`, async () => {
      proxy.whim = ({ method }) =>
        typeof whim === 'object' && whim.status === 200 && method === 'HEAD' ? { status: 405 } : whim
      const absent = await mirror.ask(`/v2/far/team/absent/manifests/t${index}`)
      assert.equal(absent.status, status)
      assert.match(await absent.text(), message)
      assert.equal(absent.headers.has('retry-after'), status === 429 || status === 503)
      const stale = await mirror.ask('/v2/far/team/here/manifests/v1')
      assert.deepEqual([stale.status, stale.headers.get('docker-content-digest')], [200, digest])
      assert.match(stale.headers.get('warning') ?? '', /^299 - "this may be out of date: /)
      const byDigest = await mirror.ask(`/v2/far/team/here/manifests/${digest}`)
      assert.deepEqual([byDigest.status, byDigest.headers.get('warning')], [200, null])
      proxy.whim = () => undefined
      // It is asked again once it was left alone for a while.
      while ((await mirror.ask('/v2/far/team/here/manifests/v1')).headers.has('warning')) {
        await new Promise(setImmediate)
      }
    })
  }

  void test('sends another manifest than its digest says: nothing is kept', async () => {
    const wanted = digestOf('another')
    proxy.whim = () => ({ status: 200, headers: { 'Content-Type': OCI_MANIFEST }, body: JSON.stringify(imageOf()) })
    const answer = await mirror.ask(`/v2/far/team/here/manifests/${wanted}`)
    assert.equal(answer.status, 503)
    assert.match(await answer.text(), /sent what is no manifest/)
  })

  void test('says nothing at all of a blob that it has: its size', async () => {
    const bytes = randomBytes(100)
    proxy.whim = ({ method }) =>
      method === 'HEAD'
        ? { status: 200, headers: { 'Transfer-Encoding': 'chunked' } }
        : { status: 200, headers: { 'Transfer-Encoding': 'chunked' }, body: bytes }
    const answer = await mirror.ask(`/v2/far/team/here/blobs/${digestOf(bytes)}`)
    assert.equal(answer.status, 503)
    assert.match(await answer.text(), /does not say how large/)
  })

  void test('shows a certificate that nobody vouches for: the answer says so; with its authority in ca it is asked', async () => {
    const refused = await mirror.ask('/v2/strange/team/app/manifests/v1')
    assert.equal(refused.status, 503)
    assert.match(await refused.text(), /did not answer: (?:DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED_CERT)/)
    const taken = await mirror.ask('/v2/known/team/app/manifests/v1')
    assert.deepEqual([taken.status, digestOf(await taken.text())], [200, digestOf(JSON.stringify(image))])
  })
})
