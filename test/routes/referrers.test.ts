import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import {
  CONFIG_TYPE,
  OCI_INDEX,
  OCI_MANIFEST,
  RegistryClient,
  codeOf,
  digestOf,
  imageOf,
  indexOf,
  nextOf,
} from '../support/client.ts'
import { type TestServer, startServer } from '../support/server.ts'

interface Entry {
  readonly mediaType: string
  readonly digest: string
  readonly size: number
  readonly artifactType?: string
  readonly annotations?: Readonly<Record<string, string>>
}

void suite('referrers', () => {
  let server: TestServer
  let registry: RegistryClient

  before(async () => {
    server = await startServer()
    registry = new RegistryClient(server.url)
  })
  after(() => server.stop())

  const subjectOf = (text: string): { mediaType: string; digest: string; size: number } => ({
    mediaType: OCI_MANIFEST,
    digest: digestOf(text),
    size: text.length,
  })

  const listed = async (name: string, digest: string, query = ''): Promise<readonly Entry[]> => {
    const answer = await registry.ask(`/v2/${name}/referrers/${digest}${query}`)
    assert.equal(answer.status, 200)
    return ((await answer.json()) as { manifests: Entry[] }).manifests
  }
  const digestsListed = async (name: string, digest: string, query = ''): Promise<string[]> =>
    (await listed(name, digest, query)).map(entry => entry.digest)

  void test('a repository or manifest that does not exist has an empty index, exactly of its type (spec: Listing Referrers)', async () => {
    const unknown = await registry.ask(`/v2/refer/none/referrers/${digestOf('none')}`)
    assert.equal(unknown.status, 200)
    assert.equal(unknown.headers.get('content-type'), OCI_INDEX)
    assert.equal(unknown.headers.get('oci-filters-applied'), null)
    assert.deepEqual(await unknown.json(), { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [] })
    assert.deepEqual(await listed('refer/none', `sha256:${'0'.repeat(64)}`), [])
  })

  void test('a digest that is none is 400 (spec: Listing Referrers)', async () => {
    const refused = await registry.ask('/v2/refer/none/referrers/sha256:x')
    assert.equal(refused.status, 400)
    assert.equal(await codeOf(refused), 'DIGEST_INVALID')
  })

  void test('images and indexes are listed before their subject exists, and answered with OCI-Subject (spec: Pushing Manifests with Subject)', async () => {
    const subject = subjectOf('not pushed yet')
    await registry.pushBlob('refer/first', '{}')
    const image = imageOf({ subject, annotations: { 'org.example': 'image' } })
    const index = indexOf([], { subject, annotations: { 'org.example': 'index' } })
    const typed = indexOf([], { subject, artifactType: 'a/b' })
    for (const [body, type] of [
      [image, OCI_MANIFEST],
      [index, OCI_INDEX],
      [typed, OCI_INDEX],
    ] as const) {
      const put = await registry.putManifest('refer/first', digestOf(JSON.stringify(body)), body, type)
      assert.equal(put.status, 201)
      assert.equal(put.headers.get('oci-subject'), subject.digest)
    }
    const entry = (body: object, more: object): object => ({
      digest: digestOf(JSON.stringify(body)),
      size: JSON.stringify(body).length,
      ...more,
    })
    const byDigest = (a: object, b: object): number => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1)
    const expected = [
      entry(image, { mediaType: OCI_MANIFEST, artifactType: CONFIG_TYPE, annotations: { 'org.example': 'image' } }),
      entry(index, { mediaType: OCI_INDEX, annotations: { 'org.example': 'index' } }),
      entry(typed, { mediaType: OCI_INDEX, artifactType: 'a/b' }),
    ]
    const sorted = (entries: readonly object[]): object[] =>
      entries
        .map(one => Object.fromEntries(Object.entries(one).toSorted(([a], [b]) => (a < b ? -1 : 1))))
        .toSorted(byDigest)
    assert.deepEqual(sorted(await listed('refer/first', subject.digest)), sorted(expected))
  })

  void test('a filter by type says so, several are alternatives, and a plus need not be encoded (spec: Listing Referrers)', async () => {
    const subject = subjectOf('filtered')
    const types = ['a/x', 'a/y', 'application/vnd.z+json']
    const digests = new Map<string, string>()
    for (const artifactType of types) {
      digests.set(artifactType, await registry.pushImage('refer/filter', '', { subject, artifactType }))
    }
    const some = await registry.ask(`/v2/refer/filter/referrers/${subject.digest}?artifactType=a%2Fx`)
    assert.equal(some.headers.get('oci-filters-applied'), 'artifactType')
    assert.equal(some.headers.get('content-type'), OCI_INDEX)
    assert.equal(((await some.json()) as { manifests: unknown[] }).manifests.length, 1)
    for (const [query, found] of [
      ['?artifactType=a/x&artifactType=a/y', ['a/x', 'a/y']],
      ['?artifactType=application/vnd.z+json', ['application/vnd.z+json']],
      ['?artifactType=application%2Fvnd.z%2Bjson', ['application/vnd.z+json']],
      ['?artifactType=no/such', []],
      ['?artifactType=', types],
    ] as const) {
      const expected = found.map(type => digests.get(type) ?? '').toSorted()
      assert.deepEqual((await digestsListed('refer/filter', subject.digest, query)).toSorted(), expected, query)
    }
  })

  void test('pages are linked with the filter and every other parameter kept (spec: Listing Referrers; RFC 8288)', async () => {
    const subject = subjectOf('paged')
    const pushed: string[] = []
    for (const n of ['1', '2', '3']) {
      pushed.push(await registry.pushImage('refer/page', '', { subject, artifactType: 'a/b+c', annotations: { n } }))
    }
    await registry.pushImage('refer/page', '', { subject, artifactType: 'other/type' })
    let path: string | undefined = `/v2/refer/page/referrers/${subject.digest}?n=2&artifactType=a%2Fb%2Bc&ns=x`
    const found: string[] = []
    const pages: number[] = []
    while (path !== undefined) {
      const page = await registry.ask(path)
      assert.equal(page.headers.get('oci-filters-applied'), 'artifactType')
      const { manifests } = (await page.json()) as { manifests: Entry[] }
      found.push(...manifests.map(entry => entry.digest))
      pages.push(manifests.length)
      path = nextOf(page)
      if (path === undefined) break
      const { searchParams } = new URL(path, 'http://registry.example')
      assert.deepEqual(
        [searchParams.get('n'), searchParams.get('artifactType'), searchParams.get('ns')],
        ['2', 'a/b+c', 'x'],
      )
    }
    assert.deepEqual(pages, [2, 1])
    assert.deepEqual(found.toSorted(), pushed.toSorted())
  })

  void test('a page without n stays below the 4 MiB that clients read, and links the rest (spec: Listing Referrers)', async () => {
    const subject = subjectOf('huge')
    const pushed: string[] = []
    for (let index = 0; index < 6; index++) {
      const annotations = { text: String(index).repeat(900_000) }
      pushed.push(await registry.pushImage('refer/huge', '', { subject, annotations }))
    }
    const found: string[] = []
    let path: string | undefined = `/v2/refer/huge/referrers/${subject.digest}`
    let pages = 0
    while (path !== undefined) {
      const page = await registry.ask(path)
      assert.ok(Number(page.headers.get('content-length')) < 4 * 1024 * 1024)
      found.push(...((await page.json()) as { manifests: Entry[] }).manifests.map(entry => entry.digest))
      path = nextOf(page)
      pages += 1
    }
    assert.equal(pages, 2)
    assert.deepEqual(found.toSorted(), pushed.toSorted())
  })

  void test('deleting a referrer takes it off the list at once (spec: Deleting Manifests)', async () => {
    const subject = subjectOf('deleted')
    const digest = await registry.pushImage('refer/delete', 'v1', { subject })
    assert.deepEqual(await digestsListed('refer/delete', subject.digest), [digest])
    await registry.ask(`/v2/refer/delete/manifests/${digest}`, { method: 'DELETE' })
    assert.deepEqual(await digestsListed('refer/delete', subject.digest), [])
  })

  void test('a referrers tag is an ordinary tag, never another name of the digest (spec: Referrers Tag Schema)', async () => {
    const digest = await registry.pushImage('refer/tag', 'v1')
    const tag = digest.replace(':', '-')
    const path = `/v2/refer/tag/manifests/${tag}`
    const absent = await registry.ask(path)
    assert.equal(absent.status, 404)
    assert.equal(await codeOf(absent), 'MANIFEST_UNKNOWN')
    const index = await registry.pushIndex('refer/tag', tag, [])
    const got = await registry.ask(path)
    assert.equal(got.headers.get('docker-content-digest'), index)
    assert.equal(got.headers.get('content-type'), OCI_INDEX)
    const tags = await registry.ask('/v2/refer/tag/tags/list')
    assert.deepEqual(((await tags.json()) as { tags: string[] }).tags, [tag, 'v1'])
    assert.equal((await registry.ask(path, { method: 'DELETE' })).status, 202)
    assert.equal((await registry.ask(`/v2/refer/tag/manifests/${digest}`)).status, 200)
  })

  void test('what a referrers tag lists is found by the API, whichever came first, once each (spec: Enabling the Referrers API)', async () => {
    const subject = subjectOf('copied from elsewhere')
    const tag = subject.digest.replace(':', '-')
    await registry.pushBlob('refer/adopt', '{}')
    const before = imageOf({ subject, annotations: { n: 'before' } })
    const later = imageOf({ subject, annotations: { n: 'later' } })
    const [first, second] = [before, later].map(body => digestOf(JSON.stringify(body)))
    assert.ok(first !== undefined && second !== undefined)
    await registry.pushManifest('refer/adopt', first, before)
    await registry.pushIndex('refer/adopt', tag, [first, second])
    assert.deepEqual(await digestsListed('refer/adopt', subject.digest), [first])
    await registry.pushManifest('refer/adopt', second, later)
    assert.deepEqual((await digestsListed('refer/adopt', subject.digest)).toSorted(), [first, second].toSorted())
    assert.equal((await registry.ask(`/v2/refer/adopt/manifests/${tag}`, { method: 'DELETE' })).status, 202)
    assert.equal((await digestsListed('refer/adopt', subject.digest)).length, 2)
  })

  void test('a manifest without a subject is no referrer, even where a referrers tag lists it (spec: Enabling the Referrers API)', async () => {
    const subject = subjectOf('listed by mistake')
    const stray = await registry.pushImage('refer/stray', '')
    await registry.pushIndex('refer/stray', subject.digest.replace(':', '-'), [stray])
    assert.deepEqual(await listed('refer/stray', subject.digest), [])
  })
})
