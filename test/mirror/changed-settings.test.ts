import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, suite, test } from 'node:test'
import { OCI_MANIFEST, RegistryClient, codeOf, digestOf } from '../support/client.ts'
import { type TestServer, createDatabase, startServer } from '../support/server.ts'
import { type UpstreamProxy, startUpstreamProxy } from '../support/upstream-proxy.ts'

/** What a mirror holds under settings that were others when it came. */
void suite('a mirror whose settings were changed', () => {
  let origin: TestServer
  let upstream: RegistryClient
  let proxy: UpstreamProxy
  let server: TestServer
  let mirror: RegistryClient
  let dataDir: string
  let database: Awaited<ReturnType<typeof createDatabase>>
  let image: string
  let layer: string
  let signature: string

  before(async () => {
    origin = await startServer()
    upstream = new RegistryClient(origin.url)
    proxy = await startUpstreamProxy(origin.url)
    layer = await upstream.pushBlob('team/app', randomBytes(1_000))
    image = await upstream.pushImage('team/app', 'v1')
    await upstream.pushImage('team/app', 'v2')
    const subject = { mediaType: OCI_MANIFEST, digest: image, size: 1 }
    signature = await upstream.pushImage('team/app', '', { subject, artifactType: 'application/signature' })
    await upstream.pushImage('team/app', '', { subject, artifactType: 'application/sbom' })
    const other = await upstream.pushImage('team/digests', '', { annotations: { pulled: 'by digest' } })
    dataDir = await mkdtemp(join(tmpdir(), 'berth-test-'))
    database = await createDatabase()
    server = await start({ tagTtl: '1h' })
    mirror = new RegistryClient(server.url)
    for (const path of [
      'team/app/manifests/v1',
      `team/app/manifests/${signature}`,
      `team/app/blobs/${layer}`,
      `team/digests/manifests/${other}`,
    ]) {
      const answer = await mirror.ask(`/v2/far/${path}`)
      assert.equal(answer.status, 200, path)
      await answer.arrayBuffer()
    }
    // Once it is stored the upstream is not asked for it.
    while ((await blobAsks()) > 0) await new Promise(setImmediate)
  })
  afterEach(() => {
    proxy.whim = () => undefined
    proxy.seen.splice(0)
  })
  after(async () => {
    await server.stop()
    await database?.drop()
    await rm(dataDir, { recursive: true })
    await proxy.close()
    await origin.stop()
  })

  async function blobAsks(): Promise<number> {
    proxy.seen.splice(0)
    await (await mirror.ask(`/v2/far/team/app/blobs/${layer}`)).arrayBuffer()
    return proxy.seen.length
  }

  const start = async (settings: object): Promise<TestServer> =>
    await startServer({
      dataDir,
      ...(database === undefined ? {} : { databaseUrl: database.url }),
      env: {
        BERTH_MIRROR_PATIENCE: '30s',
        BERTH_MIRROR_UPSTREAMS: JSON.stringify({ far: { url: proxy.url, allowPrivate: true, ...settings } }),
      },
    })

  async function restart(settings: object): Promise<void> {
    await server.stop()
    server = await start(settings)
    mirror = new RegistryClient(server.url)
  }

  /** Asks for the layer in a repository of our own: distribution-spec, "Mounting a blob from another repository". */
  async function mount(from: string, into = 'mine/1'): Promise<number> {
    const { status } = await mirror.ask(`/v2/${into}/blobs/uploads/?mount=${layer}${from}`, { method: 'POST' })
    return status
  }

  async function listed(path: string, key: 'tags' | 'manifests'): Promise<[unknown, string]> {
    const answer = await mirror.ask(`/v2/far/${path}`)
    assert.equal(answer.status, 200, path)
    const { [key]: list } = (await answer.json()) as Record<string, unknown[]>
    const items = list?.map(item => (typeof item === 'string' ? item : (item as { digest: string }).digest))
    return [items, answer.headers.get('warning') ?? '']
  }

  /** In both cases nobody says what the upstream has. */
  async function checkLists(failing: readonly string[]): Promise<void> {
    const [tags, warning] = await listed('team/app/tags/list', 'tags')
    assert.deepEqual(tags, ['v1'])
    assert.match(warning, /^299 - "this is what is here and may not be all: /)
    const [referrers, other] = await listed(`team/app/referrers/${image}`, 'manifests')
    assert.deepEqual(referrers, [signature])
    assert.match(other, /may not be all/)
    for (const path of failing) {
      const answer = await mirror.ask(`/v2/far/${path}`)
      assert.deepEqual([answer.status, await codeOf(answer)], [503, 'UNAVAILABLE'], path)
    }
    assert.deepEqual((await listed('team/app/tags/list?last=v1', 'tags'))[0], [])
  }

  void test('where the upstream is out of reach a list is what is here, and never empty for want of an answer', async () => {
    proxy.whim = () => 'cut'
    await checkLists([
      `team/app/referrers/${digestOf('never asked for')}`,
      `team/app/referrers/${image}?artifactType=application/sbom`,
      `team/never/referrers/${image}`,
      'team/digests/tags/list',
      'team/never/tags/list',
    ])
  })

  for (const [what, body] of [
    ['no JSON', '<html>'],
    ['JSON without a list', '{}'],
  ] as const) {
    void test(`an upstream that answers ${what} has not said that there is nothing`, async () => {
      while ((await mirror.ask('/v2/far/team/app/tags/list')).headers.has('warning')) await new Promise(setImmediate)
      proxy.whim = () => ({ status: 200, headers: { 'Content-Type': 'application/json' }, body })
      assert.match((await listed('team/app/tags/list', 'tags'))[1], /may not be all/)
      assert.equal((await mirror.ask(`/v2/far/team/never/referrers/${image}`)).status, 503)
    })
  }

  void test('offline a list is what is here too, and the upstream is not asked', async () => {
    await restart({ offline: true })
    await checkLists([`team/app/referrers/${digestOf('never asked for')}`, `team/never/referrers/${image}`])
    // No failure that goes by: a repository is here or is not (distribution-spec, "Listing Tags", "Listing Referrers").
    const answer = await mirror.ask('/v2/far/team/never/tags/list')
    assert.deepEqual([answer.status, await codeOf(answer)], [404, 'NAME_UNKNOWN'])
    for (const [path, key] of [
      ['team/digests/tags/list', 'tags'],
      [`team/app/referrers/${image}?artifactType=application/sbom`, 'manifests'],
      [`team/app/referrers/${signature}`, 'manifests'],
    ] as const) {
      const [items, warning] = await listed(path, key)
      assert.deepEqual(items, [], path)
      assert.match(warning, /may not be all: the mirror is offline/)
    }
    assert.deepEqual(proxy.seen, [])
  })

  void test('what is denied is not served any more, though it is here: deny is a rule of what may be pulled', async () => {
    for (const settings of [{ deny: ['team/app'] }, { allow: ['other/**'], offline: true }]) {
      await restart({ tagTtl: '1h', ...settings })
      for (const path of ['manifests/v1', `manifests/${image}`, `blobs/${layer}`, 'tags/list', `referrers/${image}`]) {
        const answer = await mirror.ask(`/v2/far/team/app/${path}`)
        assert.deepEqual([answer.status, await codeOf(answer)], [404, 'NAME_UNKNOWN'], path)
      }
      assert.equal(await mount('&from=far/team/app'), 202)
      assert.equal(await mount(''), 202)
    }
    assert.deepEqual(proxy.seen, [])
    await restart({ tagTtl: '1h', allow: ['team/*'], deny: ['team/app/**', 'team'] })
    assert.equal(await mount(''), 201)
    await restart({ tagTtl: '1h', deny: ['team/app'] })
    // A repository of our own that links it is a source like any other.
    assert.equal(await mount('&from=mine/1', 'mine/a'), 201)
    assert.equal(await mount('', 'mine/b'), 201)
    await restart({ tagTtl: '1h' })
    assert.equal((await mirror.ask('/v2/far/team/app/manifests/v1')).status, 200)
  })
})
