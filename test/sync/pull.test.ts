import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, afterEach, before, suite, test } from 'node:test'
import { OCI_INDEX, OCI_LAYER, RegistryClient, digestOf, imageOf } from '../support/client.ts'
import { berth } from '../support/command.ts'
import { type TestServer, startServer } from '../support/server.ts'
import { runSync, syncsOf } from '../support/sync.ts'
import { type UpstreamProxy, startUpstreamProxy } from '../support/upstream-proxy.ts'

const MiB = 1024 * 1024

void suite('pulling from another registry by a sync: distribution-spec, "Pull"', () => {
  let origin: TestServer
  let upstream: RegistryClient
  let proxy: UpstreamProxy
  let server: TestServer
  let here: RegistryClient

  before(async () => {
    origin = await startServer()
    upstream = new RegistryClient(origin.url)
    proxy = await startUpstreamProxy(origin.url)
    const common = { direction: 'pull', url: proxy.url, allowPrivate: true }
    server = await startServer({
      env: syncsOf({
        plain: { ...common, repositories: ['plain/app'], addPrefix: 'copy' },
        globs: { ...common, repositories: ['globs/**'], stripPrefix: 'globs', addPrefix: 'copy' },
        releases: {
          ...common,
          repositories: ['releases'],
          addPrefix: 'copy',
          tags: { versions: '>=1.1', newest: 2 },
        },
        platforms: { ...common, repositories: ['platforms'], addPrefix: 'copy', platforms: ['linux/amd64'] },
        referrers: { ...common, repositories: ['signed'], addPrefix: 'copy' },
        bare: { ...common, repositories: ['signed'], addPrefix: 'bare', referrers: false },
        shared: { ...common, repositories: ['shared/one', 'shared/two'], maxConcurrent: 2 },
        broken: { ...common, repositories: ['broken'], addPrefix: 'copy' },
        limited: { ...common, repositories: ['limited'], addPrefix: 'copy' },
        moving: { ...common, repositories: ['moving'], addPrefix: 'copy' },
        paged: { ...common, repositories: ['paged'], addPrefix: 'copy', referrers: false },
        partly: { ...common, repositories: ['partly/good', 'partly/none'], addPrefix: 'copy' },
        pinned: { ...common, repositories: ['pinned'], addPrefix: 'copy' },
        dry: { ...common, repositories: ['dry'], addPrefix: 'copy' },
        created: {
          ...common,
          repositories: ['created'],
          addPrefix: 'copy',
          tags: { newest: 1, newestBy: 'created' },
        },
        guarded: { ...common, allowPrivate: false, repositories: ['plain/app'], addPrefix: 'guarded' },
      }),
    })
    here = new RegistryClient(server.url)
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

  const gets = (part: string): string[] =>
    proxy.seen.filter(({ method, path }) => method === 'GET' && path.includes(part)).map(({ path }) => path)
  const digestHere = async (name: string, reference: string): Promise<string | null> =>
    (await here.ask(`/v2/${name}/manifests/${reference}`)).headers.get('docker-content-digest')
  const tagsHere = async (name: string): Promise<readonly string[]> =>
    ((await (await here.ask(`/v2/${name}/tags/list`)).json()) as { tags: readonly string[] }).tags

  async function pushLayered(name: string, tag: string, layer: Uint8Array<ArrayBuffer>, more = {}): Promise<string> {
    await upstream.pushBlob(name, '{}')
    const digest = await upstream.pushBlob(name, layer)
    const layers = [{ mediaType: OCI_LAYER, digest, size: layer.byteLength }]
    return await upstream.pushManifest(name, tag, imageOf({ layers, ...more }))
  }

  test('an image comes verbatim with its blobs, and what is here already is not fetched again', async () => {
    const layer = randomBytes(2 * MiB)
    const digest = await pushLayered('plain/app', 'v1', layer)
    const { run, items } = await runSync(server, 'plain')
    assert.deepEqual([run.state, run.copied, run.failed], ['done', 1, 0], JSON.stringify(items))
    const { outcome, target, blobs, bytes } = items['plain/app:v1'] ?? {}
    assert.deepEqual(
      { outcome, target, blobs, bytes },
      {
        outcome: 'copied',
        target: 'copy/plain/app',
        blobs: 2,
        bytes: layer.byteLength + 2,
      },
    )
    assert.equal(await digestHere('copy/plain/app', 'v1'), digest)
    const blob = await here.ask(`/v2/copy/plain/app/blobs/${digestOf(layer)}`)
    assert.ok(Buffer.from(await blob.arrayBuffer()).equals(layer))
    proxy.seen.splice(0)
    const again = await runSync(server, 'plain')
    assert.deepEqual([again.run.copied, again.run.upToDate], [0, 1])
    assert.deepEqual(gets('/blobs/'), [])
    assert.deepEqual(gets('/manifests/'), [])
  })

  test('the history of a tag names the sync that pointed it', async () => {
    await pushLayered('plain/app', 'named', randomBytes(100))
    await runSync(server, 'plain')
    const env = { BERTH_DATA_DIR: server.dataDir }
    const history = await berth(['tag', 'history', 'copy/plain/app:named'], { env })
    assert.match(history.stdout, /sync:plain/, history.stderr)
  })

  test('repositories are found by patterns in the catalog, and renamed', async () => {
    for (const name of ['globs/a', 'globs/deep/b', 'elsewhere/c']) await pushLayered(name, 'v1', randomBytes(10))
    const { items } = await runSync(server, 'globs')
    assert.deepEqual(
      Object.values(items).map(({ repository, target, outcome }) => [repository, target, outcome]),
      [
        ['globs/a', 'copy/a', 'copied'],
        ['globs/deep/b', 'copy/deep/b', 'copied'],
      ],
    )
  })

  test('of the tags only those of the range of versions come, and of these the newest', async () => {
    for (const tag of ['1.0.0', '1.1.0', '1.2.0', 'v1.10.0', 'latest']) {
      await pushLayered('releases', tag, randomBytes(10))
    }
    await runSync(server, 'releases')
    assert.deepEqual(await tagsHere('copy/releases'), ['1.2.0', 'v1.10.0'])
  })

  test('a list of tags is read page by page along its Links (distribution-spec, "Listing Tags")', async () => {
    for (const tag of ['a', 'b', 'c', 'd']) await pushLayered('paged', tag, randomBytes(10))
    const Link = '</v2/paged/tags/list?last=a&n=1>; rel="next"'
    proxy.whim = ({ path }) =>
      path.startsWith('/v2/paged/tags/list?n=')
        ? { status: 200, headers: { Link }, body: JSON.stringify({ name: 'paged', tags: ['a'] }) }
        : undefined
    const { run } = await runSync(server, 'paged')
    assert.equal(run.copied, 4)
    assert.equal(gets('/paged/tags/list?last=').length, 3)
  })

  test('the newest by when they were built are found by their configs (image-spec, "created")', async () => {
    for (const [tag, created] of Object.entries({ zz: '2020-01-01T00:00:00Z', aa: '2026-01-01T00:00:00Z' })) {
      const config = JSON.stringify({ created })
      const digest = await upstream.pushBlob('created', config)
      const mediaType = 'application/vnd.oci.image.config.v1+json'
      await upstream.pushManifest('created', tag, imageOf({ config: { mediaType, digest, size: config.length } }))
    }
    await runSync(server, 'created')
    assert.deepEqual(await tagsHere('copy/created'), ['aa'])
  })

  test('of an index only the images of the platforms come, and the index stays verbatim', async () => {
    const children: object[] = []
    for (const architecture of ['amd64', 'arm64']) {
      const digest = await pushLayered('platforms', '', randomBytes(1_000), { annotations: { architecture } })
      children.push({ mediaType: imageType, digest, size: 1, platform: { os: 'linux', architecture } })
    }
    const index = { schemaVersion: 2, mediaType: OCI_INDEX, manifests: children }
    const digest = await upstream.pushManifest('platforms', 'v1', index, OCI_INDEX)
    const { items } = await runSync(server, 'platforms')
    assert.equal(items['platforms:v1']?.outcome, 'copied', JSON.stringify(items))
    assert.equal(await digestHere('copy/platforms', 'v1'), digest)
    const statuses = await Promise.all(
      children.map(
        async child => (await here.ask(`/v2/copy/platforms/manifests/${(child as { digest: string }).digest}`)).status,
      ),
    )
    assert.deepEqual(statuses, [200, 404])
  })

  test('what is about an image comes along, by subject and by the tags of cosign, unless it is not wanted', async () => {
    const digest = await pushLayered('signed', 'v1', randomBytes(1_000))
    const subject = { mediaType: imageType, digest, size: 1 }
    const sbom = await upstream.pushManifest('signed', '', imageOf({ subject, annotations: { kind: 'sbom' } }))
    const about = { mediaType: imageType, digest: sbom, size: 1 }
    const signature = await upstream.pushManifest('signed', '', imageOf({ subject: about }))
    const cosign = `${digest.replace(':', '-')}.sig`
    await upstream.pushImage('signed', cosign, { annotations: { kind: 'cosign' } })
    await runSync(server, 'referrers')
    assert.equal(await digestHere('copy/signed', sbom), sbom)
    assert.equal(await digestHere('copy/signed', signature), signature)
    assert.deepEqual(await tagsHere('copy/signed'), [cosign, 'v1'])
    await runSync(server, 'bare')
    assert.deepEqual(await tagsHere('bare/signed'), ['v1'])
    assert.equal(await digestHere('bare/signed', sbom), null)
    const { manifests } = (await (await here.ask(`/v2/copy/signed/referrers/${digest}`)).json()) as {
      manifests: readonly { digest: string }[]
    }
    assert.deepEqual(
      manifests.map(each => each.digest),
      [sbom],
    )
  })

  test('a blob that several images have in common is fetched once', async () => {
    const layer = randomBytes(MiB)
    for (const name of ['shared/one', 'shared/two']) await pushLayered(name, 'v1', layer)
    const { run } = await runSync(server, 'shared')
    assert.equal(run.copied, 2)
    assert.equal(gets(`/blobs/${digestOf(layer)}`).length, 1)
  })

  test('a transfer that breaks off is taken up where it was (RFC 9110 section 14)', async () => {
    const layer = randomBytes(3 * MiB)
    await pushLayered('broken', 'v1', layer)
    let cuts = 0
    proxy.whim = ({ path }) => (path.endsWith(digestOf(layer)) && (cuts += 1) <= 2 ? 'half' : undefined)
    const { items } = await runSync(server, 'broken')
    assert.equal(items['broken:v1']?.outcome, 'copied', JSON.stringify(items))
    const ranges = proxy.seen.filter(({ path }) => path.endsWith(digestOf(layer))).map(({ headers }) => headers.range)
    assert.equal(ranges.length, 3)
    assert.match(String(ranges[1]), /^bytes=\d+-$/)
    const blob = await here.ask(`/v2/copy/broken/blobs/${digestOf(layer)}`)
    assert.ok(Buffer.from(await blob.arrayBuffer()).equals(layer))
  })

  test('a registry that has had enough is waited for as long as it says, and the run goes on (RFC 6585 section 4)', async () => {
    await pushLayered('limited', 'v1', randomBytes(100))
    let refusals = 0
    proxy.whim = ({ path }) =>
      path.includes('/blobs/') && (refusals += 1) <= 2
        ? { status: 429, headers: { 'Retry-After': '1' }, body: '{}' }
        : undefined
    const { items } = await runSync(server, 'limited')
    assert.equal(items['limited:v1']?.outcome, 'copied', JSON.stringify(items))
  })

  /** Answers the first HEAD of a tag with what it named before. */
  function answerFormer(tag: string, digest: string): void {
    let looks = 0
    proxy.whim = ({ method, path }) => {
      const isFirst = method === 'HEAD' && path.endsWith(`/manifests/${tag}`) && (looks += 1) === 1
      return isFirst ? { status: 200, headers: { 'Docker-Content-Digest': digest } } : undefined
    }
  }

  test('a tag that moves after it was looked at is copied as it was, never as parts of two images', async () => {
    const layer = randomBytes(1_000)
    const former = await pushLayered('moving', 'v1', layer)
    const moved = await pushLayered('moving', 'v1', randomBytes(1_000))
    answerFormer('v1', former)
    await runSync(server, 'moving')
    assert.equal(await digestHere('copy/moving', 'v1'), former)
    assert.equal((await here.ask(`/v2/copy/moving/blobs/${digestOf(layer)}`)).status, 200)
    await runSync(server, 'moving')
    assert.equal(await digestHere('copy/moving', 'v1'), moved)
  })

  test('a tag that moved and whose former image is gone is looked at again', async () => {
    const digest = await pushLayered('moving', 'gone', randomBytes(1_000))
    answerFormer('gone', digestOf('an image that was collected'))
    const { items } = await runSync(server, 'moving')
    assert.equal(items['moving:gone']?.outcome, 'copied', JSON.stringify(items))
    assert.equal(await digestHere('copy/moving', 'gone'), digest)
  })

  test('what fails with one repository or image is its result, and the others come', async () => {
    await pushLayered('partly/good', 'v1', randomBytes(10))
    const bad = randomBytes(1_000)
    await pushLayered('partly/good', 'v2', bad)
    proxy.whim = ({ path }) =>
      path.endsWith(digestOf(bad))
        ? { status: 200, headers: { 'Content-Length': '1000' }, body: randomBytes(1_000) }
        : undefined
    const { run, items } = await runSync(server, 'partly')
    assert.deepEqual([run.state, run.copied, run.failed], ['done', 1, 2])
    assert.match(String(items['partly/good:v2']?.reason), /digest/)
    assert.match(String(items['partly/none:']?.reason), /answered 404/)
    assert.deepEqual(await tagsHere('copy/partly/good'), ['v1'])
  })

  test('what a tag rule refuses is the result of the image, and the tag stays', async () => {
    const first = await pushLayered('pinned', 'v1', randomBytes(10))
    await runSync(server, 'pinned')
    const rule = ['tag-rule', 'add', 'copy/pinned', '--tags', 'v*', '--immutable', '--name', 'pinned']
    const added = await berth(rule, { env: { BERTH_DATA_DIR: server.dataDir } })
    assert.equal(added.code, 0, added.stderr)
    await pushLayered('pinned', 'v1', randomBytes(10))
    const { items } = await runSync(server, 'pinned')
    assert.equal(items['pinned:v1']?.outcome, 'failed')
    assert.match(String(items['pinned:v1']?.reason), /immutable: tag rule pinned/)
    assert.equal(await digestHere('copy/pinned', 'v1'), first)
  })

  test('a dry run says what would be copied, and changes nothing', async () => {
    await pushLayered('dry', 'v1', randomBytes(10))
    const { run, items } = await runSync(server, 'dry', true)
    assert.deepEqual([run.toCopy, run.copied], [1, 0])
    assert.deepEqual([items['dry:v1']?.outcome, items['dry:v1']?.reason], ['to-copy', 'it is new'])
    assert.equal((await here.ask('/v2/copy/dry/tags/list')).status, 404)
    assert.deepEqual(gets('/blobs/'), [])
    await runSync(server, 'dry')
    assert.equal((await runSync(server, 'dry', true)).run.upToDate, 1)
  })

  test('addresses of our own network are not asked unless that is allowed', async () => {
    const { items } = await runSync(server, 'guarded')
    assert.match(String(items['plain/app:']?.reason), /not a public address/)
    assert.deepEqual(proxy.seen, [])
  })

  test('a registry that lists no repositories ends a run of patterns with what to do', async () => {
    proxy.whim = ({ path }) => (path.includes('_catalog') ? { status: 401 } : undefined)
    const { run } = await runSync(server, 'globs')
    assert.equal(run.state, 'failed')
    assert.match(String(run.error), /name repositories in full/)
  })
})

const imageType = 'application/vnd.oci.image.manifest.v1+json'
