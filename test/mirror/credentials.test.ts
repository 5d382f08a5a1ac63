import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { type AccessServer, PASSWORD, basic, fetchToken, startAccessServer } from '../support/access.ts'
import { RegistryClient, codeOf, digestOf, imageOf } from '../support/client.ts'
import { type TestServer, startServer } from '../support/server.ts'
import { startUpstreamProxy } from '../support/upstream-proxy.ts'

void suite('a mirror of a registry with logins: distribution-spec, "Registry Proxying"', () => {
  let origin: AccessServer
  let server: TestServer
  let mirror: RegistryClient
  let digest: string

  before(async () => {
    origin = await startAccessServer()
    const token = await fetchToken(origin.url, ['repository:team/app:pull,push'], basic('admin', PASSWORD))
    const headers = { Authorization: `Bearer ${token}` }
    const started = await fetch(`${origin.url}/v2/team/app/blobs/uploads/?digest=${digestOf('{}')}`, {
      method: 'POST',
      headers,
      body: '{}',
    })
    assert.equal(started.status, 201)
    const body = JSON.stringify(imageOf())
    digest = digestOf(body)
    const put = await fetch(`${origin.url}/v2/team/app/manifests/v1`, {
      method: 'PUT',
      headers: { ...headers, 'Content-Type': 'application/vnd.oci.image.manifest.v1+json' },
      body,
    })
    assert.equal(put.status, 201)
    const common = { url: origin.url, allowPrivate: true, namespaces: [] }
    server = await startServer({
      env: {
        BERTH_MIRROR_UPSTREAMS: JSON.stringify({
          known: { ...common, username: 'admin', password: PASSWORD },
          unknown: common,
          mistyped: { ...common, username: 'admin', password: 'another password' },
        }),
      },
    })
    mirror = new RegistryClient(server.url)
  })
  after(async () => {
    await server.stop()
    await origin.stop()
  })

  void test('the mirror logs in with its own credentials and fetches what they may', async () => {
    const manifest = await mirror.ask('/v2/known/team/app/manifests/v1')
    assert.equal(manifest.headers.get('docker-content-digest'), digest)
    assert.equal(await (await mirror.ask(`/v2/known/team/app/blobs/${digestOf('{}')}`)).text(), '{}')
  })

  for (const prefix of ['unknown', 'mistyped']) {
    void test(`${prefix} to the upstream, it says that its credentials are not enough and asks nobody to log in`, async () => {
      const answer = await mirror.ask(`/v2/${prefix}/team/app/manifests/v1`)
      assert.deepEqual([answer.status, await codeOf(answer)], [403, 'DENIED'])
      assert.equal(answer.headers.get('www-authenticate'), null)
    })
  }

  void test('no credential stands in the log', () => {
    assert.ok(server.log.length > 0)
    assert.ok(!JSON.stringify(server.log).includes(PASSWORD))
  })
})

void suite('the credentials of a mirror: RFC 9110 section 15.4, RFC 9700 section 4.12', () => {
  void test('they go to the upstream alone, not to where it redirects, be it another port of the same host', async () => {
    const layer = 'a layer'
    const elsewhere = await startUpstreamProxy('http://127.0.0.1:9')
    elsewhere.whim = () => ({ status: 200, headers: { 'Content-Length': String(layer.length) }, body: layer })
    const upstream = await startUpstreamProxy('http://127.0.0.1:9')
    upstream.whim = ({ headers, path }) =>
      headers.authorization === undefined
        ? { status: 401, headers: { 'WWW-Authenticate': 'Basic realm="tests"' } }
        : { status: 307, headers: { Location: `${elsewhere.url}${path}` } }
    const settings = { url: upstream.url, allowPrivate: true, username: 'mirror', password: PASSWORD }
    const server = await startServer({ env: { BERTH_MIRROR_UPSTREAMS: JSON.stringify({ far: settings }) } })
    try {
      const answer = await new RegistryClient(server.url).ask(`/v2/far/team/app/blobs/${digestOf(layer)}`)
      assert.equal(await answer.text(), layer)
      assert.deepEqual(
        upstream.seen.map(({ headers }) => headers.authorization),
        [undefined, basic('mirror', PASSWORD)],
      )
      assert.deepEqual(
        elsewhere.seen.map(({ headers }) => [headers.authorization, headers.host]),
        [[undefined, new URL(elsewhere.url).host]],
      )
    } finally {
      await server.stop()
      await upstream.close()
      await elsewhere.close()
    }
  })
})
