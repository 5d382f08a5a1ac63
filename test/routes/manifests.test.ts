import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import {
  OCI_INDEX,
  OCI_LAYER,
  OCI_MANIFEST,
  RegistryClient,
  codeOf,
  digestOf,
  digestsOf,
  imageOf,
  indexOf,
} from '../support/client.ts'
import { sendRaw } from '../support/raw-http.ts'
import { type TestServer, startServer } from '../support/server.ts'

const FOREIGN_LAYER = 'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip'

void suite('manifests', () => {
  let server: TestServer
  let registry: RegistryClient

  before(async () => {
    server = await startServer()
    registry = new RegistryClient(server.url)
  })
  after(() => server.stop())

  void test('a manifest keeps its bytes and its exact Content-Type, and HEAD says the same as GET (spec: Pulling manifests)', async () => {
    await registry.pushBlob('exact/a', '{}')
    const body = `${JSON.stringify(imageOf({ unknown: { é: [1.0, null] } }), undefined, 3)}\n`
    const put = await registry.putManifest('exact/a', 'v1', body)
    assert.equal(put.status, 201)
    const got = await registry.ask('/v2/exact/a/manifests/v1')
    const head = await registry.ask('/v2/exact/a/manifests/v1', { method: 'HEAD' })
    assert.equal(got.headers.get('content-type'), OCI_MANIFEST)
    assert.equal(got.headers.get('content-length'), String(Buffer.byteLength(body)))
    assert.equal(got.headers.get('docker-content-digest'), digestOf(body))
    assert.equal(got.headers.get('content-encoding'), null)
    assert.equal(await got.text(), body)
    for (const name of ['content-type', 'content-length', 'docker-content-digest', 'etag']) {
      assert.equal(head.headers.get(name), got.headers.get(name), name)
    }
    assert.equal(await head.text(), '')
  })

  void test('the Location of a push is the manifest by digest, readable at once (spec: Pushing Manifests)', async () => {
    for (let round = 0; round < 20; round++) {
      await registry.pushBlob('fresh/a', '{}')
      const body = JSON.stringify(imageOf({ annotations: { round: String(round) } }))
      const put = await registry.putManifest('fresh/a', 'latest', body)
      assert.equal(put.headers.get('location'), `/v2/fresh/a/manifests/${digestOf(body)}`)
      assert.equal(put.headers.get('docker-content-digest'), digestOf(body))
      assert.equal(put.headers.get('content-length'), '0')
      assert.equal(await (await registry.ask(put.headers.get('location') ?? '')).text(), body)
      const byTag = await registry.ask('/v2/fresh/a/manifests/latest', { method: 'HEAD' })
      assert.equal(byTag.headers.get('docker-content-digest'), digestOf(body))
    }
  })

  void test('what a client accepts never changes the answer: the stored type or 404, no conversion (RFC 9110 section 12.5.1)', async () => {
    const child = await registry.pushImage('accept/a', 'image')
    await registry.pushIndex('accept/a', 'index', [child])
    for (const [tag, type] of [
      ['image', OCI_MANIFEST],
      ['index', OCI_INDEX],
    ] as const) {
      for (const accept of [
        '*/*',
        'text/html',
        'application/vnd.docker.distribution.manifest.v2+json',
        `${OCI_INDEX};q=0, */*;q=0`,
      ]) {
        const got = await registry.ask(`/v2/accept/a/manifests/${tag}`, { headers: { Accept: accept } })
        assert.equal(got.status, 200, accept)
        assert.equal(got.headers.get('content-type'), type, accept)
        await got.text()
      }
    }
    const bare = await sendRaw(server.host, { method: 'GET', path: '/v2/accept/a/manifests/image' })
    assert.equal(bare.headers.get('content-type'), OCI_MANIFEST)
  })

  void test('parameters of a pushed Content-Type are ignored and never sent back (spec: Pushing Manifests)', async () => {
    await registry.pushBlob('parameters/a', '{}')
    assert.equal(
      (await registry.putManifest('parameters/a', 'v1', imageOf(), `${OCI_MANIFEST}; charset=utf-8`)).status,
      201,
    )
    const got = await registry.ask('/v2/parameters/a/manifests/v1', { method: 'HEAD' })
    assert.equal(got.headers.get('content-type'), OCI_MANIFEST)
  })

  void test('a manifest without a Content-Type has the type its body names, or its shape (containers/image)', async () => {
    await registry.pushBlob('untold/a', '{}')
    for (const [tag, body, type] of [
      ['named', imageOf(), OCI_MANIFEST],
      ['image', imageOf({ mediaType: undefined }), OCI_MANIFEST],
      ['index', indexOf([], { mediaType: undefined }), OCI_INDEX],
    ] as const) {
      const path = `/v2/untold/a/manifests/${tag}`
      assert.equal((await sendRaw(server.host, { method: 'PUT', path, body: JSON.stringify(body) })).status, 201)
      assert.equal((await registry.ask(path, { method: 'HEAD' })).headers.get('content-type'), type)
    }
  })

  void test('nil slices and maps of Go clients are taken as absent, and the bytes stay as they are', async () => {
    await registry.pushBlob('null/a', '{}')
    const nothing = { annotations: null, subject: null }
    const image = JSON.stringify(imageOf({ layers: null, ...nothing }))
    assert.equal((await registry.putManifest('null/a', 'image', image)).status, 201)
    assert.equal(await (await registry.ask('/v2/null/a/manifests/image')).text(), image)
    const index = { schemaVersion: 2, mediaType: OCI_INDEX, manifests: null, ...nothing }
    assert.equal((await registry.putManifest('null/a', 'index', index, OCI_INDEX)).status, 201)
  })

  void test('a manifest of 4 MiB is taken in chunks without a Content-Length (spec: Pushing Manifests)', async () => {
    await registry.pushBlob('large/a', '{}')
    const text = Object.fromEntries(Array.from({ length: 400 }, (_, index) => [`a${index}`, 'x'.repeat(10_000)]))
    const body = JSON.stringify(imageOf({ annotations: text }))
    const put = await sendRaw(server.host, {
      method: 'PUT',
      path: '/v2/large/a/manifests/v1',
      headers: ['Transfer-Encoding: chunked', `Content-Type: ${OCI_MANIFEST}`],
      body: `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`,
    })
    assert.equal(put.status, 201)
    const got = await registry.ask('/v2/large/a/manifests/v1')
    assert.equal(got.headers.get('content-length'), String(body.length))
    assert.equal(digestOf(await got.text()), digestOf(body))
  })

  void test('If-None-Match: exact, weak, bare, in a list, and * spare the body (RFC 9110 section 13.1.2)', async () => {
    const digest = await registry.pushImage('match/a', 'v1')
    for (const reference of ['v1', digest]) {
      for (const tags of [`"${digest}"`, `W/"${digest}"`, digest, `"x","${digest}"`, '*']) {
        const answer = await registry.ask(`/v2/match/a/manifests/${reference}`, { headers: { 'If-None-Match': tags } })
        assert.equal(answer.status, 304, tags)
        assert.equal(answer.headers.get('docker-content-digest'), digest)
        assert.equal(await answer.text(), '')
      }
      const answer = await registry.ask(`/v2/match/a/manifests/${reference}`, { headers: { 'If-None-Match': '"x"' } })
      assert.equal(answer.status, 200)
      await answer.text()
    }
  })

  void test('a manifest pushed under sha512 is that digest everywhere, also by its tags (spec: Pushing Manifests)', async () => {
    await registry.pushBlob('sha512/a', '{}')
    const body = JSON.stringify(imageOf())
    const digest = digestOf(body, 'sha512')
    const put = await registry.putManifest('sha512/a', `${digest}?tag=one&tag=two`, body)
    assert.equal(put.status, 201)
    assert.equal(put.headers.get('docker-content-digest'), digest)
    for (const reference of ['one', 'two', digest]) {
      const head = await registry.ask(`/v2/sha512/a/manifests/${reference}`, { method: 'HEAD' })
      assert.equal(head.headers.get('docker-content-digest'), digest)
    }
    assert.equal((await registry.ask(`/v2/sha512/a/manifests/${digestOf(body)}`)).status, 404)
  })

  void test('a push by digest takes many tags and answers them in OCI-Tag (spec: Pushing Manifests with Tags)', async () => {
    await registry.pushBlob('tags/a', '{}')
    const body = JSON.stringify(imageOf())
    const tags = Array.from({ length: 20 }, (_, index) => `t${index}`)
    const query = tags.map(tag => `tag=${tag}`).join('&')
    const put = await registry.putManifest('tags/a', `${digestOf(body)}?${query}`, body)
    assert.equal(put.status, 201)
    assert.deepEqual(put.headers.get('oci-tag')?.split(', ').toSorted(), tags.toSorted())
    for (const tag of tags) {
      assert.equal((await registry.ask(`/v2/tags/a/manifests/${tag}`, { method: 'HEAD' })).status, 200)
    }
    const many = Array.from({ length: 200 }, (_, index) => `tag=t${index}`).join('&')
    assert.equal((await registry.putManifest('tags/a', `${digestOf(body)}?${many}`, body)).status, 414)
  })

  void test('a manifest that names blobs which are not there is refused with an entry for each (spec: Push)', async () => {
    const missing = [digestOf('a'), digestOf('b')]
    await registry.pushBlob('missing/a', '{}')
    const layers = missing.map(digest => ({ mediaType: OCI_LAYER, digest, size: 1 }))
    const put = await registry.putManifest('missing/a', 'v1', imageOf({ layers }))
    assert.equal(put.status, 400)
    const clone = put.clone()
    assert.equal(await codeOf(put), 'MANIFEST_BLOB_UNKNOWN')
    assert.deepEqual(await digestsOf(clone), missing)
    assert.equal((await registry.ask('/v2/missing/a/manifests/v1')).status, 404)
  })

  void test('foreign layers, layers with URLs, and absent subjects are no reason to refuse (spec: Push)', async () => {
    await registry.pushBlob('foreign/a', '{}')
    const layers = [
      { mediaType: FOREIGN_LAYER, digest: digestOf('f'), size: 1 },
      { mediaType: OCI_LAYER, digest: digestOf('u'), size: 1, urls: ['https://layers.example/u'] },
    ]
    const subject = { mediaType: OCI_MANIFEST, digest: digestOf('s'), size: 1 }
    const put = await registry.putManifest('foreign/a', 'v1', imageOf({ layers, subject }))
    assert.equal(put.status, 201)
    assert.equal(put.headers.get('oci-subject'), subject.digest)
  })

  void test('an index may name blobs, as a BuildKit cache does (moby/buildkit#2251), and manifests that are not there', async () => {
    const layer = await registry.pushBlob('cache/a', 'layer')
    const manifests = [
      { mediaType: OCI_LAYER, digest: layer, size: 5 },
      { mediaType: 'application/vnd.buildkit.cacheconfig.v0', digest: digestOf('absent'), size: 1 },
      { mediaType: OCI_MANIFEST, digest: digestOf('sparse'), size: 1 },
    ]
    assert.equal((await registry.putManifest('cache/a', 'v1', indexOf([], { manifests }), OCI_INDEX)).status, 201)
  })

  void test('types of configs, layers and artifacts that nobody knows are taken (image-spec: manifest)', async () => {
    await registry.pushBlob('types/a', '{}')
    const config = { mediaType: 'x/y', digest: digestOf('{}'), size: 2, data: 'e30=' }
    const layers = [{ mediaType: 'no/such+type', digest: digestOf('{}'), size: 2 }]
    await registry.pushManifest('types/a', 'v1', imageOf({ config, layers, artifactType: 'a/b' }))
  })

  void test('Docker schema 1 is refused with MANIFEST_INVALID, so that clients try another format (containers/image)', async () => {
    for (const type of ['v1+json', 'v1+prettyjws']) {
      const body = { schemaVersion: 1, name: 'a', tag: 'b', fsLayers: [] }
      const mediaType = `application/vnd.docker.distribution.manifest.${type}`
      const put = await registry.putManifest('schema/a', 'v1', body, mediaType)
      assert.equal(put.status, 400)
      assert.equal(await codeOf(put), 'MANIFEST_INVALID')
    }
  })

  void test('a complete push has no Warning; content that lies elsewhere is told with `299 - "…"` (spec: Warnings)', async () => {
    const child = await registry.pushImage('warn/a', 'complete')
    const complete = await registry.putManifest('warn/a', 'index', indexOf([child]), OCI_INDEX)
    assert.equal(complete.headers.get('warning'), null)
    const layers = [{ mediaType: FOREIGN_LAYER, digest: digestOf('f'), size: 1 }]
    const foreign = await registry.putManifest('warn/a', 'foreign', imageOf({ layers }))
    assert.equal(foreign.status, 201)
    assert.match(foreign.headers.get('warning') ?? '', /^299 - "1 foreign layer [^"\\]+"$/)
    const absent = Array.from({ length: 500 }, (_, index) => digestOf(String(index)))
    const sparse = await registry.putManifest('warn/a', 'sparse', indexOf([child, ...absent]), OCI_INDEX)
    const warning = sparse.headers.get('warning') ?? ''
    assert.match(warning, /^299 - "sparse index: 500 manifests [^"\\]+"$/)
    assert.ok(warning.length <= 4096)
  })

  void test('a tag is moved in one step: 50 pushes of it at once all succeed, and it names one of them', async () => {
    await registry.pushBlob('race/a', '{}')
    const digests = await Promise.all(
      Array.from({ length: 50 }, (_, index) =>
        registry.pushImage('race/a', 'latest', { annotations: { n: `${index}` } }),
      ),
    )
    const now = await registry.ask('/v2/race/a/manifests/latest', { method: 'HEAD' })
    assert.ok(digests.includes(now.headers.get('docker-content-digest') ?? ''))
  })

  void test('deleting a tag leaves its manifest and its other tags (spec: Deleting tags)', async () => {
    const digest = await registry.pushImage('delete/tag', 'one')
    await registry.pushImage('delete/tag', 'two')
    assert.equal((await registry.ask('/v2/delete/tag/manifests/one', { method: 'DELETE' })).status, 202)
    assert.equal((await registry.ask('/v2/delete/tag/manifests/one', { method: 'HEAD' })).status, 404)
    assert.equal((await registry.ask('/v2/delete/tag/manifests/one', { method: 'DELETE' })).status, 404)
    for (const reference of ['two', digest]) {
      assert.equal((await registry.ask(`/v2/delete/tag/manifests/${reference}`, { method: 'HEAD' })).status, 200)
    }
  })

  void test('deleting a manifest takes its tags along at once, and a push brings it back (spec: Deleting Manifests)', async () => {
    const digest = await registry.pushImage('delete/a', 'v1')
    assert.equal((await registry.ask('/v2/delete/a/manifests/v1')).status, 200)
    assert.equal((await registry.ask(`/v2/delete/a/manifests/${digest}`, { method: 'DELETE' })).status, 202)
    for (const reference of ['v1', digest]) {
      const gone = await registry.ask(`/v2/delete/a/manifests/${reference}`)
      assert.equal(gone.status, 404)
      assert.equal(await codeOf(gone), 'MANIFEST_UNKNOWN')
    }
    assert.equal(await registry.pushImage('delete/a', 'v1'), digest)
    assert.equal((await registry.ask('/v2/delete/a/manifests/v1')).status, 200)
  })

  void test('a manifest that an index names is deleted after the index, and lives on by its tag without it', async () => {
    const tagged = await registry.pushImage('delete/child', 'tagged')
    const untagged = await registry.pushImage('delete/child', '', { annotations: { a: 'b' } })
    const index = await registry.pushIndex('delete/child', 'index', [tagged, untagged])
    const remove = async (digest: string): Promise<Response> =>
      await registry.ask(`/v2/delete/child/manifests/${digest}`, { method: 'DELETE' })
    const refused = await remove(untagged)
    assert.equal(refused.status, 405)
    assert.equal(await codeOf(refused), 'UNSUPPORTED')
    assert.equal((await remove(index)).status, 202)
    assert.equal((await registry.ask('/v2/delete/child/manifests/tagged')).status, 200)
    assert.equal((await remove(untagged)).status, 202)
  })

  void test('path components may be called like endpoints: names are parsed from the right', async () => {
    for (const name of ['v2/blobs/manifests/tags', 'tags/list', 'referrers', 'blobs/uploads', 'manifests/manifests']) {
      await registry.pushImage(name, 'list')
      assert.equal((await registry.ask(`/v2/${name}/manifests/list`)).status, 200, name)
      assert.equal((await registry.ask(`/v2/${name}/tags/list`)).status, 200, name)
      assert.equal((await registry.ask(`/v2/${name}/blobs/${digestOf('{}')}`)).status, 200, name)
    }
  })
})
