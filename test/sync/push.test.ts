import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, suite, test } from 'node:test'
import { type AccessServer, PASSWORD, basic, fetchToken, startAccessServer } from '../support/access.ts'
import { OCI_INDEX, OCI_LAYER, OCI_MANIFEST, RegistryClient, digestOf, imageOf } from '../support/client.ts'
import { type Distribution, startDistribution } from '../support/distribution.ts'
import { type TestServer, startServer } from '../support/server.ts'
import { runSync, syncsOf } from '../support/sync.ts'
import { type UpstreamProxy, startUpstreamProxy } from '../support/upstream-proxy.ts'

const MiB = 1024 * 1024

void suite('pushing to another registry by a sync: distribution-spec, "Push"', () => {
  let edge: AccessServer
  let old: Distribution
  let toEdge: UpstreamProxy
  let toOld: UpstreamProxy
  let server: TestServer
  let here: RegistryClient
  let work: string

  before(async () => {
    work = await mkdtemp(join(tmpdir(), 'berth-test-sync-'))
    old = await startDistribution(join(work, 'distribution'))
    toOld = await startUpstreamProxy(`http://${old.host}`, { keepsHost: true })
    edge = await startAccessServer()
    toEdge = await startUpstreamProxy(edge.url)
    const common = { direction: 'push', allowPrivate: true, repositories: ['team/**'], addPrefix: 'edge' }
    // The realm that the edge names is its own address, not the proxy's.
    const login = { url: toEdge.url, username: 'admin', password: PASSWORD, trustedHosts: ['127.0.0.1'] }
    const basicLogin = { url: toOld.url, username: old.username, password: old.password }
    server = await startServer({
      env: syncsOf({
        edge: { ...common, ...login },
        old: { ...common, ...basicLogin },
        wrong: { ...common, ...login, password: 'another password', repositories: ['team/app'] },
        fetched: {
          ...login,
          direction: 'pull',
          allowPrivate: true,
          repositories: ['edge/team/ap*'],
          stripPrefix: 'edge',
          addPrefix: 'fetched',
        },
        back: {
          direction: 'pull',
          allowPrivate: true,
          ...basicLogin,
          repositories: ['edge/team/**'],
          stripPrefix: 'edge/team',
          addPrefix: 'back',
        },
      }),
    })
    here = new RegistryClient(server.url)
  })
  afterEach(() => {
    for (const proxy of [toEdge, toOld]) {
      proxy.whim = () => undefined
      proxy.seen.splice(0)
    }
  })
  after(async () => {
    await server.stop()
    await toEdge.close()
    await toOld.close()
    await edge.stop()
    await old.stop()
    await rm(work, { recursive: true, force: true })
  })

  async function atEdge(repository: string, path: string): Promise<Response> {
    const token = await fetchToken(edge.url, [`repository:${repository}:pull`], basic('admin', PASSWORD))
    return await fetch(`${edge.url}/v2/${repository}/${path}`, { headers: { Authorization: `Bearer ${token}` } })
  }
  const atOld = async (repository: string, path: string): Promise<Response> =>
    await fetch(`http://${old.host}/v2/${repository}/${path}`, {
      headers: { Authorization: basic(old.username, old.password), Accept: `${OCI_MANIFEST}, ${OCI_INDEX}` },
    })

  async function pushLayered(name: string, tag: string, layer: Uint8Array<ArrayBuffer>, more = {}): Promise<string> {
    await here.pushBlob(name, '{}')
    const digest = await here.pushBlob(name, layer)
    const layers = [{ mediaType: OCI_LAYER, digest, size: layer.byteLength }]
    return await here.pushManifest(name, tag, imageOf({ layers, ...more }))
  }

  test('an index with its images and what is about them goes to a registry with token logins, and comes back by its catalog', async () => {
    const layer = randomBytes(MiB)
    const child = await pushLayered('team/app', '', layer)
    const index = await here.pushIndex('team/app', 'v1', [child])
    const subject = { mediaType: OCI_INDEX, digest: index, size: 1 }
    const sbom = await here.pushManifest('team/app', '', imageOf({ subject }))
    const { run, items } = await runSync(server, 'edge')
    assert.deepEqual([run.state, run.copied, run.failed], ['done', 1, 0], JSON.stringify(items))
    const pushed = await atEdge('edge/team/app', 'manifests/v1')
    assert.equal(pushed.headers.get('docker-content-digest'), index)
    assert.equal((await atEdge('edge/team/app', `manifests/${sbom}`)).status, 200)
    const blob = await atEdge('edge/team/app', `blobs/${digestOf(layer)}`)
    assert.ok(Buffer.from(await blob.arrayBuffer()).equals(layer))
    const fetched = await runSync(server, 'fetched')
    assert.equal(fetched.run.copied, 1, JSON.stringify(fetched))
    for (const reference of ['v1', child, sbom]) {
      assert.equal((await here.ask(`/v2/fetched/team/app/manifests/${reference}`)).status, 200)
    }
    toEdge.seen.splice(0)
    assert.equal((await runSync(server, 'edge')).run.upToDate, 1)
    assert.deepEqual(
      toEdge.seen.filter(({ method }) => ['POST', 'PATCH', 'PUT'].includes(method)),
      [],
    )
  })

  test('it goes to CNCF Distribution as well, whose list of referrers is kept for it (distribution-spec, "Referrers Tag Schema"), and back', async () => {
    const digest = await pushLayered('team/old', 'v1', randomBytes(MiB))
    const subject = { mediaType: OCI_MANIFEST, digest, size: 1 }
    const sboms = [
      await here.pushManifest('team/old', '', imageOf({ subject, annotations: { turn: '1' } })),
      await here.pushManifest('team/old', '', imageOf({ subject, annotations: { turn: '2' } })),
    ]
    const { items } = await runSync(server, 'old')
    assert.equal(items['team/old:v1']?.outcome, 'copied', JSON.stringify(items))
    assert.equal((await atOld('edge/team/old', 'manifests/v1')).headers.get('docker-content-digest'), digest)
    const list = (await (await atOld('edge/team/old', `manifests/${digest.replace(':', '-')}`)).json()) as {
      manifests: readonly { digest: string }[]
    }
    assert.deepEqual(list.manifests.map(each => each.digest).toSorted(), sboms.toSorted())
    const back = await runSync(server, 'back')
    assert.equal(back.items['edge/team/old:v1']?.target, 'back/old', JSON.stringify(back))
    for (const reference of ['v1', ...sboms]) {
      assert.equal((await here.ask(`/v2/back/old/manifests/${reference}`)).status, 200)
    }
  })

  for (const [name, proxyOf] of [
    ['edge', () => toEdge],
    ['old', () => toOld],
  ] as const) {
    test(`an upload to ${name} whose connection breaks goes on where the session is (distribution-spec, "Resuming an upload")`, async () => {
      const layer = randomBytes(8 * MiB)
      const repository = `team/cut-${name}`
      await pushLayered(repository, 'v1', layer)
      const proxy = proxyOf()
      let cuts = 0
      proxy.whim = ({ method, path, headers }) =>
        method === 'PATCH' && path.includes(repository) && Number(headers['content-length']) > MiB && (cuts += 1) === 1
          ? 'half-sent'
          : undefined
      const { run, items } = await runSync(server, name)
      assert.equal(items[`${repository}:v1`]?.outcome, 'copied', JSON.stringify([run, items[`${repository}:v1`]]))
      const ranges = proxy.seen
        .filter(({ method, path }) => method === 'PATCH' && path.includes(repository))
        .map(({ headers }) => String(headers['content-range']))
        .filter(range => range.endsWith(`-${layer.byteLength - 1}`))
      assert.match(ranges[0] ?? '', /^0-/)
      // Distribution may have noticed nothing yet when it is asked, and then takes all of it again.
      assert.match(ranges.at(-1) ?? '', name === 'edge' ? /^[1-9]/ : /^\d/)
      assert.ok(ranges.length > 1)
      assert.ok(proxy.seen.some(({ method, path }) => method === 'GET' && path.includes('/blobs/uploads/')))
      const read = name === 'edge' ? atEdge : atOld
      const blob = await read(`edge/${repository}`, `blobs/${digestOf(layer)}`)
      assert.ok(Buffer.from(await blob.arrayBuffer()).equals(layer))
    })
  }

  test('a registry that refuses a manifest says why in the result of the image, and the others go', async () => {
    await pushLayered('team/refused', 'v1', randomBytes(10))
    await pushLayered('team/taken', 'v1', randomBytes(10))
    toEdge.whim = ({ method, path }) =>
      method === 'PUT' && path.includes('/team/refused/manifests/')
        ? { status: 400, body: JSON.stringify({ errors: [{ code: 'MANIFEST_INVALID', message: 'not like this' }] }) }
        : undefined
    const { items } = await runSync(server, 'edge')
    assert.equal(items['team/taken:v1']?.outcome, 'copied')
    assert.equal(items['team/refused:v1']?.outcome, 'failed')
    assert.match(String(items['team/refused:v1']?.reason), /answered 400: MANIFEST_INVALID not like this/)
  })

  test('a dry run pushes nothing', async () => {
    await pushLayered('team/dry', 'v1', randomBytes(10))
    const { items } = await runSync(server, 'edge', true)
    assert.equal(items['team/dry:v1']?.outcome, 'to-copy')
    assert.deepEqual(
      toEdge.seen.filter(({ method }) => method !== 'GET' && method !== 'HEAD'),
      [],
    )
  })

  test('wrong credentials are the result of each image, and no credential stands in the log', async () => {
    await pushLayered('team/app', 'v2', randomBytes(10))
    const { run, items } = await runSync(server, 'wrong')
    assert.deepEqual([run.state, run.copied], ['done', 0])
    assert.match(String(items['team/app:v2']?.reason), /answered 401/)
    assert.ok(!JSON.stringify(server.log).includes(PASSWORD))
    assert.ok(!JSON.stringify(server.log).includes(old.password))
  })
})
