import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { type AccessServer, PASSWORD, basic, fetchToken, startAccessServer } from '../support/access.ts'
import { RegistryClient, codeOf, digestOf, imageOf } from '../support/client.ts'
import { type TestServer, startServer } from '../support/server.ts'

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
