import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { RegistryClient, codeOf, digestOf, nextOf } from '../support/client.ts'
import { type TestServer, startServer } from '../support/server.ts'

interface TagList {
  readonly name: string
  readonly tags: readonly string[]
}

void suite('lists of tags and repositories', () => {
  const tags = ['0.1.2', '0.1.20', 'A', 'Z', 'a', 'a-b', 'a.b', 'a_b', 'b']
  let server: TestServer
  let registry: RegistryClient

  before(async () => {
    server = await startServer({ env: { BERTH_REGISTRY_TAG_LIST_MAX: '100' } })
    registry = new RegistryClient(server.url)
    for (const tag of tags.toReversed()) await registry.pushImage('list/a', tag)
  })
  after(() => server.stop())

  const list = async (query: string): Promise<{ tags: readonly string[]; next: string | undefined }> => {
    const answer = await registry.ask(`/v2/list/a/tags/list${query}`)
    assert.equal(answer.status, 200)
    assert.equal(answer.headers.get('content-type'), 'application/json')
    const next = nextOf(answer)
    return { tags: ((await answer.json()) as TagList).tags, next }
  }

  void test('tags are listed in byte order, all of them or page by page (spec: Listing Tags)', async () => {
    assert.deepEqual(await list(''), { tags, next: undefined })
    const listed: string[] = []
    let query: string | undefined = '?n=2'
    while (query !== undefined) {
      const page = await list(query)
      listed.push(...page.tags)
      assert.ok(page.next === undefined || page.next.startsWith('/v2/list/a/tags/list?'))
      query = page.next?.slice('/v2/list/a/tags/list'.length)
    }
    assert.deepEqual(listed, tags)
  })

  void test('a last page that is full has no Link (RFC 8288; spec: Listing Tags)', async () => {
    assert.deepEqual(await list(`?n=${tags.length}`), { tags, next: undefined })
  })

  void test('n=0 is an empty list without a next page (spec: Listing Tags)', async () => {
    assert.deepEqual(await list('?n=0'), { tags: [], next: undefined })
  })

  void test('last need not exist, and compares bytewise (spec: Listing Tags)', async () => {
    assert.deepEqual((await list('?last=Zz')).tags, ['a', 'a-b', 'a.b', 'a_b', 'b'])
    assert.deepEqual((await list('?last=a-')).tags, ['a-b', 'a.b', 'a_b', 'b'])
    assert.deepEqual((await list('?last=zzz')).tags, [])
  })

  void test('an n over the maximum is lowered to it, and the next page is linked', async () => {
    const body = JSON.stringify({ schemaVersion: 2, manifests: [] })
    const many = Array.from({ length: 130 }, (_, index) => `t${String(index).padStart(3, '0')}`)
    for (const some of [many.slice(0, 65), many.slice(65)]) {
      const query = some.map(tag => `tag=${tag}`).join('&')
      const type = 'application/vnd.oci.image.index.v1+json'
      assert.equal((await registry.putManifest('list/many', `${digestOf(body)}?${query}`, body, type)).status, 201)
    }
    for (const query of ['', '?n=5000', `?n=${'9'.repeat(40)}`]) {
      const first = await registry.ask(`/v2/list/many/tags/list${query}`)
      const next = nextOf(first) ?? ''
      assert.deepEqual(((await first.json()) as TagList).tags, many.slice(0, 100))
      const second = await registry.ask(next)
      assert.deepEqual(((await second.json()) as TagList).tags, many.slice(100))
      assert.equal(nextOf(second), undefined)
    }
  })

  void test('a Link keeps the path and every parameter, percent-encoded, without what clients split on (RFC 8288)', async () => {
    const next = (await list('?n=1&ns=docker.io&odd=a%3Bb%2Cc%3E%20')).next ?? ''
    const url = new URL(next, 'http://registry.example')
    assert.equal(url.pathname, '/v2/list/a/tags/list')
    assert.deepEqual(
      Object.entries(Object.fromEntries(url.searchParams)).toSorted(([a], [b]) => (a < b ? -1 : 1)),
      [
        ['last', '0.1.2'],
        ['n', '1'],
        ['ns', 'docker.io'],
        ['odd', 'a;b,c> '],
      ],
    )
    assert.doesNotMatch(next, /[;,<>\s]/)
  })

  void test('an n that is no number is 400 (spec: Listing Tags)', async () => {
    for (const path of ['/v2/list/a/tags/list', '/v2/_catalog']) {
      for (const n of ['-1', 'abc', '', '1.5']) {
        const refused = await registry.ask(`${path}?n=${n}`)
        assert.equal(refused.status, 400)
        assert.equal(await codeOf(refused), 'PAGINATION_NUMBER_INVALID')
      }
    }
  })

  void test('a repository without tags lists [], not null, and an unknown one is 404 NAME_UNKNOWN', async () => {
    const digest = await registry.pushImage('list/none', 'gone')
    await registry.ask(`/v2/list/none/manifests/gone`, { method: 'DELETE' })
    assert.ok(digest.startsWith('sha256:'))
    assert.equal(await (await registry.ask('/v2/list/none/tags/list')).text(), '{"name":"list/none","tags":[]}')
    const unknown = await registry.ask('/v2/list/unknown/tags/list')
    assert.equal(unknown.status, 404)
    assert.equal(await codeOf(unknown), 'NAME_UNKNOWN')
  })

  void test('a push and a delete show in the list at once', async () => {
    for (let round = 0; round < 10; round++) {
      await registry.pushImage('list/now', `t${round}`)
      const listed = async (): Promise<readonly string[]> =>
        ((await (await registry.ask('/v2/list/now/tags/list')).json()) as TagList).tags
      assert.deepEqual(await listed(), [`t${round}`])
      assert.equal((await registry.ask(`/v2/list/now/manifests/t${round}`, { method: 'DELETE' })).status, 202)
      assert.deepEqual(await listed(), [])
    }
  })

  void test('the catalog is paged like tags, with its own path in Link', async () => {
    for (const name of ['catalog/a', 'catalog/b', 'catalog/b-c']) await registry.pushImage(name, 'v1')
    const first = await registry.ask('/v2/_catalog?n=2&last=catalog')
    assert.equal(await first.clone().text(), '{"repositories":["catalog/a","catalog/b"]}')
    assert.equal(nextOf(first), '/v2/_catalog?n=2&last=catalog%2Fb')
    const none = await registry.ask('/v2/_catalog?n=0')
    assert.equal(nextOf(none), undefined)
    assert.equal(await none.text(), '{"repositories":[]}')
  })
})
