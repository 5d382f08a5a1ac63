import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, afterEach, before, suite, test } from 'node:test'
import { OCI_LAYER, OCI_MANIFEST, RegistryClient, codeOf, digestOf, imageOf, indexOf } from '../support/client.ts'
import { type TestServer, startServer } from '../support/server.ts'
import { type UpstreamProxy, startUpstreamProxy } from '../support/upstream-proxy.ts'

const MiB = 1024 * 1024
const NOWHERE = 'http://127.0.0.1:9'

void suite('pulling through a mirror: distribution-spec, "Registry Proxying"', () => {
  let origin: TestServer
  let upstream: RegistryClient
  let proxy: UpstreamProxy
  let server: TestServer
  let mirror: RegistryClient

  before(async () => {
    origin = await startServer()
    upstream = new RegistryClient(origin.url)
    proxy = await startUpstreamProxy(origin.url)
    const common = { url: proxy.url, allowPrivate: true }
    server = await startServer({
      env: {
        // The slowest machine answers in this time, so that what is served stale is so for another reason.
        BERTH_MIRROR_PATIENCE: '30s',
        BERTH_MIRROR_UPSTREAMS: JSON.stringify({
          fresh: { ...common, tagTtl: '0s', namespaces: ['upstream.example'], hosts: ['root.example'] },
          calm: { ...common, tagTtl: '1h', tagTtls: [{ tags: 'nightly-*', ttl: '0s' }], namespaces: [] },
          picky: { ...common, allow: ['team/**'], deny: ['team/secret'], namespaces: [] },
          offline: { ...common, offline: true, namespaces: [] },
          guarded: { url: proxy.url, namespaces: [] },
        }),
      },
    })
    mirror = new RegistryClient(server.url)
  })
  afterEach(() => {
    proxy.whim = () => undefined
    proxy.resume()
    proxy.seen.splice(0)
  })
  after(async () => {
    await server.stop()
    await proxy.close()
    await origin.stop()
  })

  const asked = (): string[] => proxy.seen.map(({ method, path }) => `${method} ${path}`)
  const body = async (answer: Response): Promise<Buffer> => Buffer.from(await answer.arrayBuffer())

  async function pushLayer(name: string, bytes: Uint8Array<ArrayBuffer>): Promise<string> {
    const digest = await upstream.pushBlob(name, bytes)
    return digest
  }

  void test('a manifest comes verbatim with its media type, a blob byte for byte, and each is fetched once', async () => {
    const layer = randomBytes(100_000)
    const digest = await pushLayer('library/once', layer)
    const manifest = await upstream.pushImage('library/once', 'v1')
    for (let turn = 0; turn < 2; turn += 1) {
      const answer = await mirror.ask('/v2/calm/library/once/manifests/v1')
      assert.equal(answer.status, 200)
      assert.equal(answer.headers.get('docker-content-digest'), manifest)
      assert.equal(answer.headers.get('content-type'), OCI_MANIFEST)
      assert.equal(digestOf(await body(answer)), manifest)
      assert.ok((await body(await mirror.ask(`/v2/calm/library/once/blobs/${digest}`))).equals(layer))
    }
    assert.deepEqual(asked(), [
      'HEAD /v2/library/once/manifests/v1',
      `GET /v2/library/once/manifests/${manifest}`,
      `GET /v2/library/once/blobs/${digest}`,
    ])
  })

  void test('a manifest is answered before any layer of it was asked for', async () => {
    const layers = await Promise.all([1, 2, 3].map(() => pushLayer('library/cold', randomBytes(MiB))))
    const descriptors = layers.map(digest => ({ mediaType: OCI_LAYER, digest, size: MiB }))
    const digest = await upstream.pushImage('library/cold', 'v1', { layers: descriptors })
    // Whoever waits for one waits until this test is over.
    proxy.whim = ({ path }) => (path.includes('/blobs/') ? 'stall' : undefined)
    for (const reference of ['v1', digest]) {
      const answer = await mirror.ask(`/v2/calm/library/cold/manifests/${reference}`)
      assert.deepEqual([answer.status, digestOf(await body(answer))], [200, digest])
    }
    assert.deepEqual(asked(), ['HEAD /v2/library/cold/manifests/v1', `GET /v2/library/cold/manifests/${digest}`])
  })

  void test('a tag that moved is fetched anew once it is not fresh any more, and not before', async () => {
    const first = await upstream.pushImage('library/moving', 'latest', { annotations: { turn: '1' } })
    await upstream.pushImage('library/moving', 'nightly-1', { annotations: { turn: '1' } })
    for (const path of ['calm/library/moving/manifests/latest', 'calm/library/moving/manifests/nightly-1']) {
      assert.equal((await mirror.ask(`/v2/${path}`)).headers.get('docker-content-digest'), first)
    }
    const second = await upstream.pushImage('library/moving', 'latest', { annotations: { turn: '2' } })
    await upstream.pushImage('library/moving', 'nightly-1', { annotations: { turn: '2' } })
    const digestBy = async (tag: string): Promise<string | null> =>
      (await mirror.ask(`/v2/calm/library/moving/manifests/${tag}`)).headers.get('docker-content-digest')
    assert.equal(await digestBy('latest'), first)
    assert.equal(await digestBy('nightly-1'), second)
  })

  void test('a tag that did not move is confirmed by a HEAD, which public registries do not count as a pull', async () => {
    await upstream.pushImage('library/still', 'v1')
    await mirror.ask('/v2/fresh/library/still/manifests/v1')
    proxy.seen.splice(0)
    const answer = await mirror.ask('/v2/fresh/library/still/manifests/v1')
    assert.equal(answer.status, 200)
    assert.equal(answer.headers.get('warning'), null)
    assert.deepEqual(asked(), ['HEAD /v2/library/still/manifests/v1'])
    assert.match(String(proxy.seen[0]?.headers.accept), /index.*manifest\.list/)
  })

  void test('an upstream that takes its time does not hold up a tag that is here, and its answer is for the next', async () => {
    const impatient = await startServer({
      env: {
        BERTH_MIRROR_PATIENCE: '300ms',
        BERTH_MIRROR_UPSTREAMS: JSON.stringify({ slow: { url: proxy.url, allowPrivate: true, tagTtl: '0s' } }),
      },
    })
    try {
      const client = new RegistryClient(impatient.url)
      const ask = async (): Promise<Response> => await client.ask('/v2/slow/library/slow/manifests/v1')
      const first = await upstream.pushImage('library/slow', 'v1', { annotations: { turn: '1' } })
      assert.equal((await ask()).headers.get('docker-content-digest'), first)
      const second = await upstream.pushImage('library/slow', 'v1', { annotations: { turn: '2' } })
      proxy.whim = ({ method }) => (method === 'GET' ? 'stall' : undefined)
      const answer = await ask()
      assert.equal(answer.headers.get('docker-content-digest'), first)
      assert.match(answer.headers.get('warning') ?? '', /did not answer in 300 ms/)
      proxy.resume()
      proxy.whim = () => undefined
      while ((await ask()).headers.get('docker-content-digest') !== second) await new Promise(setImmediate)
    } finally {
      await impatient.stop()
    }
  })

  void test('where nothing is here the failure is told with what the upstream answered, and when to come again', async () => {
    proxy.whim = () => ({ status: 429, headers: { 'Retry-After': '1' } })
    const limited = await mirror.ask('/v2/calm/library/nothing/manifests/v1')
    assert.deepEqual([limited.status, await codeOf(limited)], [429, 'TOOMANYREQUESTS'])
    assert.equal(limited.headers.get('retry-after'), '1')
    proxy.whim = () => undefined
    const answers = async (): Promise<number> => (await mirror.ask('/v2/calm/library/nothing/manifests/v1')).status
    let status = await answers()
    while (status === 429) status = await answers()
    assert.equal(status, 404)
  })

  void test('what the upstream does not have is 404, and is not asked for again at once', async () => {
    for (let turn = 0; turn < 3; turn += 1) {
      const answer = await mirror.ask('/v2/calm/library/absent/manifests/v1')
      assert.deepEqual([answer.status, await codeOf(answer)], [404, 'MANIFEST_UNKNOWN'])
    }
    assert.equal(asked().length, 1)
  })

  void test('a tag that is deleted upstream is gone, what it named stays by digest', async () => {
    const digest = await upstream.pushImage('library/deleted', 'v1')
    await mirror.ask('/v2/fresh/library/deleted/manifests/v1')
    await upstream.ask('/v2/library/deleted/manifests/v1', { method: 'DELETE' })
    assert.equal((await mirror.ask('/v2/fresh/library/deleted/manifests/v1')).status, 404)
    assert.equal((await mirror.ask(`/v2/fresh/library/deleted/manifests/${digest}`)).status, 200)
  })

  void test('a hundred who ask at once for one blob share one fetch (distribution/distribution#2852)', async () => {
    const layer = randomBytes(4 * MiB)
    const digest = await pushLayer('library/many', layer)
    proxy.seen.splice(0)
    const bodies = await Promise.all(
      Array.from({ length: 100 }, async () => await body(await mirror.ask(`/v2/calm/library/many/blobs/${digest}`))),
    )
    assert.ok(bodies.every(bytes => bytes.equals(layer)))
    assert.deepEqual(asked(), [`GET /v2/library/many/blobs/${digest}`])
  })

  void test('bytes reach the client as they come, ranges of what has come too, before the whole is here', async () => {
    const layer = randomBytes(2 * MiB)
    const digest = await pushLayer('library/early', layer)
    proxy.seen.splice(0)
    proxy.whim = ({ path }) => (path.includes('/blobs/') ? 'stall' : undefined)
    const answer = await mirror.ask(`/v2/calm/library/early/blobs/${digest}`)
    assert.equal(answer.headers.get('content-length'), String(layer.byteLength))
    const reader = answer.body?.getReader()
    const first = await reader?.read()
    assert.ok(layer.subarray(0, first?.value?.byteLength).equals(first?.value ?? Buffer.alloc(1)))
    const range = await mirror.ask(`/v2/calm/library/early/blobs/${digest}`, { headers: { Range: 'bytes=10-19' } })
    assert.equal(range.status, 206)
    assert.ok((await body(range)).equals(layer.subarray(10, 20)))
    const parts = { Range: 'bytes=0-3,100-103' }
    assert.equal((await mirror.ask(`/v2/calm/library/early/blobs/${digest}`, { headers: parts })).status, 206)
    proxy.resume()
    let received = first?.value?.byteLength ?? 0
    for (let next = await reader?.read(); next?.done === false; next = await reader?.read()) {
      assert.ok(layer.subarray(received, received + next.value.byteLength).equals(next.value))
      received += next.value.byteLength
    }
    assert.equal(received, layer.byteLength)
    assert.equal(asked().length, 1)
  })

  void test('a transfer that breaks off is taken up where it was (RFC 9110 section 14)', async () => {
    const layer = randomBytes(3 * MiB)
    const digest = await pushLayer('library/broken', layer)
    proxy.seen.splice(0)
    let cuts = 0
    proxy.whim = ({ path }) => (path.includes('/blobs/') && (cuts += 1) <= 2 ? 'half' : undefined)
    const answer = await mirror.ask(`/v2/calm/library/broken/blobs/${digest}`)
    assert.ok((await body(answer)).equals(layer))
    const ranges = proxy.seen.map(({ headers }) => headers.range)
    assert.equal(ranges.length, 3)
    assert.match(String(ranges[1]), /^bytes=\d+-$/)
    assert.ok((await body(await mirror.ask(`/v2/calm/library/broken/blobs/${digest}`))).equals(layer))
  })

  void test('content that is not what its digest says ends the transfer visibly and is never kept', async () => {
    const layer = randomBytes(100_000)
    const digest = await pushLayer('library/wrong', layer)
    proxy.whim = ({ path }) =>
      path.includes('/blobs/')
        ? { status: 200, headers: { 'Content-Length': '100000' }, body: randomBytes(100_000) }
        : undefined
    await assert.rejects(async () => await body(await mirror.ask(`/v2/calm/library/wrong/blobs/${digest}`)))
    proxy.whim = () => undefined
    assert.ok((await body(await mirror.ask(`/v2/calm/library/wrong/blobs/${digest}`))).equals(layer))
  })

  void test('an answer without a byte is no blob', async () => {
    const digest = digestOf('something')
    proxy.whim = () => ({ status: 200, headers: { 'Content-Length': '0' } })
    assert.equal((await mirror.ask(`/v2/calm/library/nothing/blobs/${digest}`)).status, 503)
  })

  void test('a blob that was absent is there for those who keep asking, once the upstream has it', async () => {
    const layer = randomBytes(1_000)
    const path = `/v2/calm/library/soon/blobs/${digestOf(layer)}`
    assert.equal((await mirror.ask(path)).status, 404)
    await pushLayer('library/soon', layer)
    while ((await mirror.ask(path)).status === 404) await new Promise(setImmediate)
    assert.ok((await body(await mirror.ask(path))).equals(layer))
  })

  void test('what an upstream refuses to be asked is no reason to leave it alone', async () => {
    await upstream.pushImage('library/asked', 'v1')
    proxy.whim = () => ({ status: 400 })
    for (let turn = 0; turn < 5; turn += 1) {
      assert.equal((await mirror.ask(`/v2/calm/library/asked/manifests/t${turn}`)).status, 502)
    }
    proxy.whim = () => undefined
    assert.equal((await mirror.ask('/v2/calm/library/asked/manifests/v1')).status, 200)
  })

  void test('an upstream that knows no HEAD is asked by GET', async () => {
    const digest = await upstream.pushImage('library/headless', 'v1')
    proxy.whim = ({ method }) => (method === 'HEAD' ? { status: 405 } : undefined)
    const answer = await mirror.ask('/v2/calm/library/headless/manifests/v1')
    assert.equal(answer.headers.get('docker-content-digest'), digest)
  })

  void test('what an upstream claims to have gives nothing away that is not its own', async () => {
    const secret = randomBytes(1_000)
    const digest = await mirror.pushBlob('team/secret', secret)
    proxy.whim = () => ({ status: 200, headers: { 'Content-Length': '1000' }, body: randomBytes(1_000) })
    await assert.rejects(async () => await body(await mirror.ask(`/v2/calm/library/claims/blobs/${digest}`)))
  })

  void test('bytes that another repository brought are not fetched again, once the upstream says that this one has them', async () => {
    const layer = randomBytes(50_000)
    const digest = await pushLayer('library/first', layer)
    await pushLayer('library/second', layer)
    await body(await mirror.ask(`/v2/calm/library/first/blobs/${digest}`))
    assert.ok((await body(await mirror.ask(`/v2/calm/library/second/blobs/${digest}`))).equals(layer))
    assert.equal((await mirror.ask(`/v2/calm/library/third/blobs/${digest}`)).status, 404)
  })

  void test('nothing can be pushed into a mirror or deleted from it', async () => {
    await upstream.pushImage('library/readonly', 'v1')
    const digest = `sha256:${'0'.repeat(64)}`
    for (const [method, path] of [
      ['POST', 'blobs/uploads/'],
      ['PUT', 'manifests/v1'],
      ['DELETE', 'manifests/v1'],
      ['DELETE', `blobs/${digest}`],
    ] as const) {
      const answer = await mirror.ask(`/v2/calm/library/readonly/${path}`, {
        method,
        ...(method === 'PUT' ? { body: JSON.stringify(imageOf()), headers: { 'Content-Type': OCI_MANIFEST } } : {}),
      })
      assert.deepEqual([answer.status, await codeOf(answer)], [405, 'UNSUPPORTED'], `${method} ${path}`)
    }
  })

  void test('repositories of our own live beside mirrors', async () => {
    const digest = await mirror.pushImage('team/own', 'v1')
    assert.equal((await mirror.ask('/v2/team/own/manifests/v1')).headers.get('docker-content-digest'), digest)
    assert.deepEqual(asked(), [])
  })

  void test('clients that say whose repository they mean by ns find it, and another namespace is unknown', async () => {
    const digest = await upstream.pushImage('library/named', 'v1')
    const answer = await mirror.ask('/v2/library/named/manifests/v1?ns=upstream.example')
    assert.equal(answer.headers.get('docker-content-digest'), digest)
    assert.equal(answer.headers.get('oci-namespace'), 'upstream.example')
    const unknown = await mirror.ask('/v2/library/named/manifests/v1?ns=elsewhere.example')
    assert.deepEqual([unknown.status, await codeOf(unknown)], [404, 'NAME_UNKNOWN'])
  })

  void test('only what is allowed and not denied is fetched', async () => {
    await upstream.pushImage('team/open', 'v1')
    await upstream.pushImage('team/secret', 'v1')
    await upstream.pushImage('other/open', 'v1')
    const statusOf = async (name: string): Promise<number> =>
      (await mirror.ask(`/v2/picky/${name}/manifests/v1`)).status
    assert.deepEqual(
      [await statusOf('team/open'), await statusOf('team/secret'), await statusOf('other/open')],
      [200, 404, 404],
    )
  })

  void test('offline, what is here is served and nothing is asked', async () => {
    assert.equal((await mirror.ask('/v2/offline/library/once/manifests/v1')).status, 404)
    assert.deepEqual(asked(), [])
  })

  void test('an upstream in our own network is not asked unless that is allowed (CVE-2026-33540)', async () => {
    const answer = await mirror.ask('/v2/guarded/library/once/manifests/v1')
    assert.equal(answer.status, 502)
    assert.deepEqual(asked(), [])
  })

  void test('the upstream cannot send us elsewhere: redirects and token realms of others are refused (CVE-2026-33540)', async () => {
    const elsewhere = await startUpstreamProxy(origin.url)
    const other = elsewhere.url.replace('127.0.0.1', 'localhost')
    try {
      const digest = digestOf('elsewhere')
      proxy.whim = () => ({ status: 307, headers: { Location: `${other}/v2/library/x/blobs/${digest}` } })
      assert.equal((await mirror.ask(`/v2/calm/library/x/blobs/${digest}`)).status, 502)
      const challenge = `Bearer realm="${other}/token",service="x"`
      proxy.whim = () => ({ status: 401, headers: { 'WWW-Authenticate': challenge } })
      assert.equal((await mirror.ask('/v2/calm/library/y/manifests/v1')).status, 502)
      // A token service that is its own, and sends the credentials on.
      proxy.whim = ({ path }) =>
        path.startsWith('/token')
          ? { status: 307, headers: { Location: `${other}/token` } }
          : { status: 401, headers: { 'WWW-Authenticate': `Bearer realm="${proxy.url}/token",service="x"` } }
      assert.equal((await mirror.ask('/v2/calm/library/z/manifests/v1')).status, 503)
      assert.deepEqual(elsewhere.seen, [])
    } finally {
      await elsewhere.close()
    }
  })

  void test('lists come from the upstream; where it fails they are what is here, and never empty for want of an answer', async () => {
    const subject = await upstream.pushImage('library/lists', 'v1')
    const descriptor = { mediaType: OCI_MANIFEST, digest: subject, size: 1 }
    const referrer = await upstream.pushImage('library/lists', '', { subject: descriptor, artifactType: 'a/b' })
    await upstream.pushImage('library/lists', 'v2')
    const tags = async (): Promise<unknown> =>
      ((await (await mirror.ask('/v2/fresh/library/lists/tags/list')).json()) as { tags: unknown }).tags
    assert.deepEqual(await tags(), ['v1', 'v2'])
    const path = `/v2/fresh/library/lists/referrers/${subject}`
    const listed = (await (await mirror.ask(path)).json()) as { manifests: { digest: string }[] }
    assert.deepEqual(
      listed.manifests.map(({ digest }) => digest),
      [referrer],
    )
    await mirror.ask('/v2/fresh/library/lists/manifests/v1')
    proxy.whim = () => ({ status: 503 })
    assert.deepEqual(await tags(), ['v1'])
    assert.equal((await mirror.ask(path)).status, 503)
  })

  void test('an index is kept whole though only one of its platforms was pulled (goharbor/harbor#19806)', async () => {
    const image = await upstream.pushImage('library/multi', '', { annotations: { platform: 'a' } })
    const other = await upstream.pushImage('library/multi', '', { annotations: { platform: 'b' } })
    const index = await upstream.pushIndex('library/multi', 'v1', [image, other])
    const answer = await mirror.ask('/v2/calm/library/multi/manifests/v1')
    assert.equal(answer.headers.get('docker-content-digest'), index)
    assert.equal(await answer.text(), JSON.stringify(indexOf([image, other])))
    assert.equal((await mirror.ask(`/v2/calm/library/multi/manifests/${image}`)).status, 200)
  })

  void test('a layer that lies elsewhere is named as it was, and not fetched from there (image-spec, "Non-Distributable Layers")', async () => {
    const digest = digestOf('foreign')
    const mediaType = 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip'
    const layers = [{ mediaType, digest, size: 7, urls: [`${NOWHERE}/foreign`] }]
    const manifest = await upstream.pushImage('library/foreign', 'v1', { layers })
    const answer = await mirror.ask('/v2/calm/library/foreign/manifests/v1')
    assert.equal(digestOf(await body(answer)), manifest)
    const blob = await mirror.ask(`/v2/calm/library/foreign/blobs/${digest}`)
    assert.deepEqual([blob.status, await codeOf(blob)], [404, 'BLOB_UNKNOWN'])
  })

  void test('nothing of whoever asks goes to the upstream (distribution-spec, "Registry Proxying")', async () => {
    await upstream.pushImage('library/private', 'v1')
    await mirror.ask('/v2/fresh/library/private/manifests/v1', {
      headers: { Authorization: 'Basic YTpi', Cookie: 'a=b', 'X-Forwarded-For': '192.0.2.1' },
    })
    assert.ok(proxy.seen.length > 0)
    for (const { headers } of proxy.seen) {
      assert.deepEqual(
        [headers.authorization, headers.cookie, headers['x-forwarded-for']],
        [undefined, undefined, undefined],
      )
      assert.equal(headers.host, new URL(proxy.url).host)
    }
  })

  void test('a mirror whose upstream is nowhere says so', async () => {
    const lost = await startServer({
      env: { BERTH_MIRROR_UPSTREAMS: JSON.stringify({ lost: { url: NOWHERE, allowPrivate: true } }) },
    })
    try {
      const answer = await new RegistryClient(lost.url).ask('/v2/lost/a/manifests/v1')
      assert.deepEqual([answer.status, await codeOf(answer)], [503, 'UNAVAILABLE'])
      assert.match(await (await new RegistryClient(lost.url).ask('/v2/lost/b/manifests/v1')).text(), /127\.0\.0\.1:9/)
    } finally {
      await lost.stop()
    }
  })
})
