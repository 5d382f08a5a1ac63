import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, afterEach, before, suite, test } from 'node:test'
import { OCI_MANIFEST, RegistryClient, codeOf, digestOf } from '../support/client.ts'
import { berth } from '../support/command.ts'
import { type TestServer, startServer } from '../support/server.ts'
import { type UpstreamProxy, startUpstreamProxy } from '../support/upstream-proxy.ts'

void suite('tag rules and quotas over a mirror', () => {
  let origin: TestServer
  let upstream: RegistryClient
  let proxy: UpstreamProxy
  let server: TestServer
  let mirror: RegistryClient

  before(async () => {
    origin = await startServer()
    upstream = new RegistryClient(origin.url)
    proxy = await startUpstreamProxy(origin.url)
    server = await startServer({
      env: {
        BERTH_MIRROR_PATIENCE: '30s',
        BERTH_MIRROR_UPSTREAMS: JSON.stringify({ far: { url: proxy.url, allowPrivate: true, tagTtl: '0s' } }),
      },
    })
    mirror = new RegistryClient(server.url)
  })
  afterEach(() => {
    proxy.whim = () => undefined
    proxy.seen.splice(0)
  })
  after(async () => {
    await server.stop()
    await proxy.close()
    await origin.stop()
  })

  const asked = (): string[] => proxy.seen.map(({ method, path }) => `${method} ${path}`)
  async function administer(...args: string[]): Promise<void> {
    const done = await berth(args, { env: { BERTH_DATA_DIR: server.dataDir } })
    assert.equal(done.code, 0, done.stderr)
  }
  async function pull(path: string): Promise<{ status: number; digest: string | null; warning: string }> {
    const { status, headers } = await mirror.ask(path)
    return { status, digest: headers.get('docker-content-digest'), warning: headers.get('warning') ?? '' }
  }

  void test('an immutable tag stays what it was first, and the upstream is not asked for it any more', async () => {
    const first = await upstream.pushImage('team/pinned', 'v1', { annotations: { turn: '1' } })
    await administer('tag-rule', 'add', 'far/team/pinned', '--tags', 'v*', '--immutable', '--name', 'pinned')
    const path = '/v2/far/team/pinned/manifests/v1'
    assert.equal((await pull(path)).digest, first)
    await upstream.pushImage('team/pinned', 'v1', { annotations: { turn: '2' } })
    proxy.seen.splice(0)
    for (let turn = 0; turn < 2; turn += 1) {
      assert.deepEqual(await pull(path), { status: 200, digest: first, warning: '' })
    }
    assert.deepEqual(asked(), [])
    const other = await upstream.pushImage('team/pinned', 'latest', { annotations: { turn: '2' } })
    assert.equal((await pull('/v2/far/team/pinned/manifests/latest')).digest, other)
  })

  void test('a protected tag is what the upstream says: nobody pushes to a mirror', async () => {
    await administer('tag-rule', 'add', 'far/team/guarded', '--tags', '*', '--protected', '--name', 'guarded')
    for (const turn of ['1', '2']) {
      const digest = await upstream.pushImage('team/guarded', 'v1', { annotations: { turn } })
      assert.deepEqual(await pull('/v2/far/team/guarded/manifests/v1'), { status: 200, digest, warning: '' })
    }
  })

  void test('what a full quota has no room for is passed on without being kept, with a warning, and fetched once by tag and digest', async () => {
    const layer = randomBytes(3_000_000)
    await upstream.pushBlob('team/full', layer)
    const manifest = await upstream.pushImage('team/full', 'v1')
    await administer('quota', 'set', 'far/team/full', '10B')
    for (const reference of ['v1', manifest, 'v1']) {
      const answer = await mirror.ask(`/v2/far/team/full/manifests/${reference}`)
      assert.equal(answer.status, 200)
      assert.equal(answer.headers.get('docker-content-digest'), manifest)
      assert.equal(answer.headers.get('content-type'), OCI_MANIFEST)
      assert.match(answer.headers.get('warning') ?? '', /not kept here: the quota of far\/team\/full is exceeded/)
      assert.equal(digestOf(Buffer.from(await answer.arrayBuffer())), manifest)
    }
    assert.deepEqual(
      asked().filter(ask => ask.startsWith('GET')),
      [`GET /v2/team/full/manifests/${manifest}`],
    )
    const blob = await mirror.ask(`/v2/far/team/full/blobs/${digestOf(layer)}`)
    assert.equal(blob.status, 200)
    assert.ok(Buffer.from(await blob.arrayBuffer()).equals(layer))
    // Bytes that another repository of the mirror holds are passed on no less.
    const shared = randomBytes(2_000_000)
    const digest = await upstream.pushBlob('team/roomy', shared)
    await upstream.pushBlob('team/full', shared)
    await (await mirror.ask(`/v2/far/team/roomy/blobs/${digest}`)).arrayBuffer()
    const passed = await mirror.ask(`/v2/far/team/full/blobs/${digest}`)
    assert.equal(passed.status, 200)
    assert.ok(Buffer.from(await passed.arrayBuffer()).equals(shared))
    assert.equal((await mirror.ask('/v2/far/team/full/manifests/none')).status, 404)
    // Once there is room, it is kept like anything else.
    await administer('quota', 'set', 'far/team/full', '1GB')
    const second = await upstream.pushImage('team/full', 'v2', { annotations: { turn: '2' } })
    assert.deepEqual(await pull('/v2/far/team/full/manifests/v2'), { status: 200, digest: second, warning: '' })
    proxy.whim = () => 'cut'
    assert.equal((await pull(`/v2/far/team/full/manifests/${second}`)).status, 200)
  })

  void test('what is no manifest is not passed on, whether a quota is full or not', async () => {
    await administer('quota', 'set', 'far/team/wrong', '1B')
    proxy.whim = ({ method }) =>
      method === 'HEAD' ? { status: 405 } : { status: 200, headers: { 'Content-Type': OCI_MANIFEST }, body: 'nonsense' }
    const answer = await mirror.ask('/v2/far/team/wrong/manifests/v1')
    assert.deepEqual([answer.status, await codeOf(answer)], [503, 'UNAVAILABLE'])
  })
})
