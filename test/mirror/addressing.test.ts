import assert from 'node:assert/strict'
import { type IncomingMessage, request } from 'node:http'
import { text } from 'node:stream/consumers'
import { after, before, suite, test } from 'node:test'
import { type AccessServer, PASSWORD, basic, fetchToken, startAccessServer } from '../support/access.ts'
import { OCI_MANIFEST, RegistryClient } from '../support/client.ts'
import { type TestServer, startServer } from '../support/server.ts'
import { type UpstreamProxy, startUpstreamProxy } from '../support/upstream-proxy.ts'

interface Answer {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  readonly body: string
}

/** Docker Hub and Quay as far as their names go: both are asked through a proxy that leads to a registry of the tests. */
void suite('what clients call a repository of a mirror: distribution-spec, "Registry Proxying"', () => {
  const digests = new Map<string, string>()
  let origin: TestServer
  let proxy: UpstreamProxy
  let server: AccessServer
  let everything: string

  before(async () => {
    origin = await startServer()
    const upstream = new RegistryClient(origin.url)
    proxy = await startUpstreamProxy(origin.url)
    server = await startAccessServer({
      BERTH_MIRROR_UPSTREAMS: JSON.stringify({
        hub: { url: 'http://registry-1.docker.io', proxy: proxy.url, hosts: ['hub.example'], tagTtl: '1h' },
        quay: { url: 'http://quay.io', proxy: proxy.url, hosts: ['quay.example'], tagTtl: '1h' },
      }),
    })
    for (const name of ['library/app', 'hub/app', 'quay/app', 'app', 'team/app', 'quay/team/app']) {
      digests.set(name, await upstream.pushImage(name, 'v1', { annotations: { name } }))
      await upstream.pushImage(name, 'v2', { annotations: { name } })
    }
    await server.administer('POST', '/users', { name: 'reader', password: PASSWORD })
    for (const pattern of ['hub/library/*', 'quay/team/*']) {
      await server.administer('POST', '/grants', {
        subject: { kind: 'principal', name: 'reader' },
        pattern,
        actions: ['pull'],
      })
    }
    const scopes = [
      'hub/library/app',
      'hub/hub/app',
      'quay/app',
      'quay/quay/app',
      'quay/team/app',
      'quay/quay/team/app',
    ]
    everything = await fetchToken(
      server.url,
      scopes.map(name => `repository:${name}:pull`),
      basic('admin', PASSWORD),
    )
  })
  after(async () => {
    await server.stop()
    await proxy.close()
    await origin.stop()
  })

  async function ask(
    path: string,
    { host, token = everything, authorization = `Bearer ${token}`, form }: Ask = {},
  ): Promise<Answer> {
    const { hostname, port } = new URL(server.url)
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
    const headers = {
      Authorization: authorization,
      ...(host === undefined ? {} : { Host: host }),
      ...(form === undefined ? {} : { 'Content-Type': 'application/x-www-form-urlencoded' }),
    }
    request({ host: hostname, port, path, headers, method: form === undefined ? 'GET' : 'POST' }, resolve)
      .on('error', reject)
      .end(form)
    const answer = await promise
    return { status: answer.statusCode ?? 0, headers: answer.headers, body: await text(answer) }
  }

  interface Ask {
    readonly host?: string
    readonly token?: string
    readonly authorization?: string
    readonly form?: string
  }

  // A path below /v2/, with the Host where it is not the registry's own, and the upstream's repository that is meant.
  const table: readonly (readonly [string, string | undefined, string | number])[] = [
    ['hub/library/app/manifests/v1', undefined, 'library/app'],
    ['hub/app/manifests/v1', undefined, 'library/app'],
    ['library/app/manifests/v1?ns=docker.io', undefined, 'library/app'],
    ['library/app/manifests/v1?ns=Docker.IO', undefined, 'library/app'],
    // An organisation that is called as the prefix is.
    ['hub/app/manifests/v1?ns=docker.io', undefined, 'hub/app'],
    ['hub/hub/app/manifests/v1', undefined, 'hub/app'],
    // Names of Docker Hub have two components, so this has the prefix already (BuildKit with a path, `override_path`).
    ['hub/library/app/manifests/v1?ns=docker.io', undefined, 'library/app'],
    ['hub/hub/app/manifests/v1?ns=docker.io', undefined, 'hub/app'],
    ['library/app/manifests/v1', 'hub.example', 'library/app'],
    ['hub/app/manifests/v1', 'hub.example', 'hub/app'],
    ['library/app/manifests/v1', 'hub.example:443', 'library/app'],
    // Elsewhere a name may have any number, and is taken as the upstream calls it.
    ['quay/app/manifests/v1', undefined, 'app'],
    ['app/manifests/v1?ns=quay.io', undefined, 'app'],
    ['quay/app/manifests/v1?ns=quay.io', undefined, 'quay/app'],
    ['team/app/manifests/v1?ns=quay.io', undefined, 'team/app'],
    ['quay/team/app/manifests/v1?ns=quay.io', undefined, 'quay/team/app'],
    ['quay/app/manifests/v1', 'quay.example', 'quay/app'],
    ['library/app/manifests/v1?ns=elsewhere.example', undefined, 404],
    ['hub/library/app/manifests/v1?ns=elsewhere.example', undefined, 404],
  ]
  for (const [path, host, expected] of table) {
    void test(`${path}${host === undefined ? '' : ` at ${host}`} is ${expected}`, async () => {
      const { status, headers, body } = await ask(`/v2/${path}`, host === undefined ? {} : { host })
      if (typeof expected === 'number') {
        assert.deepEqual([status, headers['oci-namespace']], [expected, undefined], body)
        assert.match(body, /NAME_UNKNOWN/)
        return
      }
      assert.deepEqual([status, headers['docker-content-digest']], [200, digests.get(expected)], body)
      assert.equal(headers['oci-namespace'], new URLSearchParams(path.split('?')[1]).get('ns') ?? undefined)
    })
  }

  void test('both names of a repository on Docker Hub are one copy', async () => {
    proxy.seen.splice(0)
    const path = 'manifests/v2'
    const first = await ask(`/v2/hub/app/${path}`)
    const second = await ask(`/v2/hub/library/app/${path}`)
    const third = await ask(`/v2/library/app/${path}?ns=docker.io`)
    assert.deepEqual([first.status, second.status, third.status], [200, 200, 200])
    assert.deepEqual(
      proxy.seen.map(({ method }) => method),
      ['HEAD'],
    )
    assert.match(proxy.seen[0]?.path ?? '', /registry-1\.docker\.io\/v2\/library\/app\/manifests\/v2$/)
  })

  void test('lists are of the one repository too', async () => {
    for (const path of ['hub/app', 'hub/library/app']) {
      const { body } = await ask(`/v2/${path}/tags/list`)
      assert.deepEqual((JSON.parse(body) as { tags: string[] }).tags, ['v1', 'v2'])
      const referrers = await ask(`/v2/${path}/referrers/${digests.get('library/app')}`)
      assert.deepEqual((JSON.parse(referrers.body) as { manifests: unknown[] }).manifests, [])
    }
  })

  for (const [path, host] of [
    ['hub/app', undefined],
    ['team/app', 'quay.example'],
    ['quay/team/app?ns=quay.io', undefined],
    ['library/app?ns=docker.io', undefined],
  ] as const) {
    void test(`the next page of a list of ${path}${host === undefined ? '' : ` at ${host}`} is asked for by the same name (RFC 8288)`, async () => {
      const [name, query = ''] = path.split('?')
      const place = host === undefined ? {} : { host }
      const first = await ask(`/v2/${name}/tags/list?n=1&${query}`, place)
      const next = /^<([^>]+)>/.exec(String(first.headers.link))?.[1] ?? ''
      assert.ok(next.startsWith(`/v2/${name}/tags/list?`), next)
      assert.deepEqual((JSON.parse((await ask(next, place)).body) as { tags: string[] }).tags, ['v2'])
    })
  }

  void test('grants are checked against the one name, whatever a client calls the repository', async () => {
    const tokenOf = async (scope: string, host?: string): Promise<string> => {
      const { body } = await ask(`/token?service=berth&scope=repository:${scope}:pull`, {
        authorization: basic('reader', PASSWORD),
        ...(host === undefined ? {} : { host }),
      })
      return (JSON.parse(body) as { token: string }).token
    }
    const statusOf = async (path: string, token: string, host?: string): Promise<number> =>
      (await ask(`/v2/${path}`, { token, ...(host === undefined ? {} : { host }) })).status
    // Docker asks for a token by the name that it was given, before it is told any other.
    assert.equal(await statusOf('hub/app/manifests/v1', await tokenOf('hub/app')), 200)
    assert.equal(
      await statusOf('library/app/manifests/v1', await tokenOf('library/app', 'hub.example'), 'hub.example'),
      200,
    )
    assert.equal(
      await statusOf('team/app/manifests/v1', await tokenOf('team/app', 'quay.example'), 'quay.example'),
      200,
    )
    // What the challenge says.
    assert.equal(
      await statusOf('team/app/manifests/v1', await tokenOf('quay/team/app', 'quay.example'), 'quay.example'),
      200,
    )
    assert.equal(await statusOf('hub/app/manifests/v1?ns=docker.io', await tokenOf('hub/hub/app')), 401)
    assert.equal(await statusOf('app/manifests/v1?ns=quay.io', await tokenOf('quay/app')), 401)
    const refused = await ask('/v2/hub/app/manifests/v1', { token: await tokenOf('nothing') })
    assert.match(refused.headers['www-authenticate'] ?? '', /scope="repository:hub\/library\/app:pull"/)
  })

  void test('the source of a mount has both names too: distribution-spec, "Mounting a blob from another repository"', async () => {
    const { body } = await ask('/v2/hub/app/manifests/v1')
    const { digest } = (JSON.parse(body) as { config: { digest: string } }).config
    assert.equal((await ask(`/v2/hub/app/blobs/${digest}`)).status, 200)
    const token = await fetchToken(server.url, ['repository:mine/app:pull,push'], basic('admin', PASSWORD))
    const mount = async (from: string): Promise<number> =>
      (await ask(`/v2/mine/app/blobs/uploads/?mount=${digest}&from=${from}`, { token, form: '' })).status
    // Stored a moment after it was sent.
    while ((await mount('hub/library/app')) !== 201) await new Promise(setImmediate)
    assert.equal(await mount('hub/app'), 201)
    assert.equal(await mount('hub/none'), 202)
  })

  void test('a token is asked for by the form of OAuth 2 just so', async () => {
    const form = new URLSearchParams({
      grant_type: 'password',
      service: 'berth',
      client_id: 'tests',
      username: 'reader',
      password: PASSWORD,
      scope: 'repository:hub/app:pull',
    })
    const { body } = await ask('/token', { form: form.toString(), authorization: '' })
    const { access_token: token, scope } = JSON.parse(body) as { access_token: string; scope: string }
    assert.equal(scope, 'repository:hub/library/app:pull')
    assert.equal((await ask('/v2/hub/app/manifests/v1', { token })).status, 200)
  })

  void test('what is pushed to a name of two parts is refused as to any other of a mirror', async () => {
    const client = new RegistryClient(server.url)
    const put = await client.ask('/v2/hub/app/manifests/v1', {
      method: 'PUT',
      body: '{}',
      headers: {
        'Content-Type': OCI_MANIFEST,
        Authorization: `Bearer ${await fetchToken(server.url, ['repository:hub/app:pull,push'], basic('admin', PASSWORD))}`,
      },
    })
    assert.equal(put.status, 405)
  })
})

test('a registry without mirrors is meant by every namespace: containerd says the name that hosts.toml gives it an alias for', async t => {
  const server = await startServer()
  t.after(() => server.stop())
  const digest = await new RegistryClient(server.url).pushImage('team/app', 'v1')
  const answer = await fetch(`${server.url}/v2/team/app/manifests/v1?ns=registry.example`, {
    headers: { Accept: OCI_MANIFEST },
  })
  assert.deepEqual([answer.status, answer.headers.get('docker-content-digest')], [200, digest])
})
