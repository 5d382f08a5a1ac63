import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { type AccessServer, startAccessServer } from '../../support/access.ts'
import { type Api, type ApiAnswer, apiOf, detailOf } from '../../support/api.ts'
import { type TagAnswer, askManifest, pushText, textIndex } from '../../support/tag-client.ts'

let server: AccessServer
let api: Api
before(async () => {
  server = await startAccessServer()
  api = apiOf(server)
})
after(() => server.stop())

const push = async (name: string, tag: string, text: string, as = api.admin): Promise<TagAnswer> =>
  await pushText(server.url, as, { name, tag, text })
const pull = async (name: string, reference: string): Promise<string | undefined> =>
  (await askManifest(server.url, api.admin, { method: 'HEAD', name, reference })).digest
const remove = async (name: string, reference: string, as = api.admin): Promise<TagAnswer> =>
  await askManifest(server.url, as, { method: 'DELETE', name, reference })
const post = async (path: string, body: object, as?: string): Promise<ApiAnswer> =>
  await api.call('POST', path, body, as)
const audited = async (kind: string): Promise<readonly unknown[]> =>
  (await api.list(`/audit?kind=${kind}`)).map(entry => entry['detail'])

void suite('tag rules over HTTP', () => {
  test('a refusal is 403 DENIED with the name of the rule, for every way to write a tag (spec: Error Codes)', async () => {
    const { digest } = textIndex('one')
    assert.equal((await push('rules/app', 'v1', 'one')).status, 201)
    const rule = { name: 'releases', pattern: 'rules/**', tags: '/v\\d+/', immutable: true }
    assert.deepEqual((await post('/tag-rules', rule)).body, { name: 'releases' })
    assert.equal((await push('rules/app', 'v1', 'one')).status, 201)
    const beside = { name: 'rules/app', text: 'two', tags: ['v1', 'latest'] }
    for (const refused of [
      await push('rules/app', 'v1', 'two'),
      await pushText(server.url, api.admin, beside),
      await remove('rules/app', 'v1'),
      await remove('rules/app', digest),
    ]) {
      assert.deepEqual([refused.status, refused.code], [403, 'DENIED'])
      assert.match(refused.message ?? '', /^tag v1 is immutable: tag rule releases \(/)
    }
    for (const refused of [
      await api.call('DELETE', '/repositories/rules/app'),
      await post('/manifest-deletions', { repository: 'rules/app', reference: digest, force: true }),
    ]) {
      assert.equal(refused.status, 403)
      assert.match(detailOf(refused), /tag rule releases/)
    }
    assert.equal(await pull('rules/app', 'latest'), undefined)
    assert.equal((await api.call('DELETE', '/tag-rules/releases')).status, 204)
    assert.equal((await push('rules/app', 'v1', 'two')).status, 201)
    assert.deepEqual(await audited('tag-rule.remove'), [{ rule: 'releases' }])
  })

  test('writers of protected tags are principals and members of groups, as they are now', async () => {
    const dev = await api.makeUser('dev')
    const subject = { kind: 'principal', name: 'dev' }
    const grant = { subject, pattern: 'guarded/**', actions: ['push', 'delete'] }
    assert.equal((await post('/grants', grant)).status, 201)
    assert.equal((await post('/groups', { name: 'release' })).status, 201)
    const rule = { name: 'guarded', pattern: 'guarded/**', tags: 'prod', protected: true, writers: ['group:release'] }
    assert.equal((await post('/tag-rules', rule)).status, 201)
    assert.equal((await push('guarded/app', 'prod', 'one', dev)).status, 403)
    assert.equal((await push('guarded/app', 'dev', 'one', dev)).status, 201)
    assert.equal((await api.call('PUT', '/groups/release/members/dev')).status, 204)
    assert.equal((await push('guarded/app', 'prod', 'one', dev)).status, 201)
    assert.equal((await remove('guarded/app', 'prod')).status, 403)
    assert.equal((await api.call('DELETE', '/groups/release/members/dev')).status, 204)
    assert.equal((await remove('guarded/app', 'prod', dev)).status, 403)
    const [found] = (await api.list('/tag-rules')).filter(({ name }) => name === 'guarded')
    assert.deepEqual(found?.['writers'], ['group:release'])
  })

  test('what makes no sense is refused with the reason, and without a name a rule is named by its number', async () => {
    const base = { pattern: 'sense/**', tags: 'v*', immutable: true }
    for (const [wrong, why] of [
      [{ tags: '/(/' }, /pattern of tags/],
      [{ tags: 'a/b' }, /pattern of tags/],
      [{ pattern: '***' }, /pattern is a repository name/],
      [{ immutable: false }, /immutable, or protected/],
      [{ writers: ['admin'] }, /writers/],
      [{ name: 'No Name' }, /name of a tag rule/],
    ] as const) {
      const answer = await post('/tag-rules', { ...base, ...wrong })
      assert.equal(answer.status, 400, JSON.stringify(wrong))
      assert.match(detailOf(answer), why)
    }
    assert.equal((await post('/tag-rules', { ...base, protected: true, writers: ['nobody'] })).status, 404)
    const { name } = (await post('/tag-rules', base)).body as { name: string }
    assert.match(name, /^rule-\d+$/)
    assert.equal((await post('/tag-rules', { ...base, name })).status, 409)
  })
})

void suite('deleting and bringing back over HTTP', () => {
  test('a repository, its name with slashes as they are or encoded, each act in the audit', async () => {
    await push('gone/deep/app', 'v1', 'one')
    const { body } = await api.call('GET', '/repositories/gone/deep/app')
    const { id, tags, manifests } = body as { id: number; tags: number; manifests: number }
    assert.deepEqual([tags, manifests], [1, 1])
    assert.equal((await api.call('DELETE', '/repositories/gone%2Fdeep%2Fapp')).status, 204)
    assert.equal((await api.call('GET', '/repositories/gone/deep/app')).status, 404)
    assert.equal(await pull('gone/deep/app', 'v1'), undefined)
    const [deleted] = await api.list('/deleted-repositories')
    assert.deepEqual([deleted?.['id'], deleted?.['name'], deleted?.['deletedBy']], [id, 'gone/deep/app', 'admin'])
    assert.deepEqual((await post('/repository-undeletions', { repository: 'gone/deep/app' })).body, { id })
    assert.equal(await pull('gone/deep/app', 'v1'), textIndex('one').digest)
    assert.equal((await post('/repository-undeletions', { repository: 'gone/deep/app' })).status, 404)
    for (const kind of ['repository.delete', 'repository.undelete']) {
      assert.deepEqual(await audited(kind), [{ repository: 'gone/deep/app', id }])
    }
  })

  test('a tag and a manifest, with their refusals', async () => {
    const { digest } = textIndex('kept')
    await push('back/app', 'v1', 'kept')
    assert.equal((await remove('back/app', digest)).status, 202)
    const undelete = async (reference: string, force = false): Promise<ApiAnswer> =>
      await post('/undeletions', { repository: 'back/app', reference, force })
    assert.deepEqual((await undelete(digest)).body, { digest, tags: ['v1'], manifests: [digest] })
    assert.equal((await remove('back/app', 'v1')).status, 202)
    await push('back/app', 'v1', 'other')
    const taken = await undelete('v1')
    assert.deepEqual([taken.status, /another digest/.test(detailOf(taken))], [409, true])
    assert.deepEqual((await undelete('v1', true)).body, { digest, tags: ['v1'], manifests: [] })
    assert.equal(await pull('back/app', 'v1'), digest)
    assert.equal((await undelete(`sha256:${'0'.repeat(64)}`)).status, 404)
    assert.equal((await undelete('-')).status, 400)
    assert.equal((await audited('manifest.undelete')).length, 1)
    assert.equal((await audited('tag.undelete')).length, 1)
  })

  test('a list shows nobody what he may not pull, living or deleted', async () => {
    const viewer = await api.makeUser('viewer')
    const grant = { subject: { kind: 'principal', name: 'viewer' }, pattern: 'seen/**', actions: ['pull'] }
    assert.equal((await post('/grants', grant)).status, 201)
    for (const name of ['seen/a', 'seen/b', 'hidden/a', 'hidden/b']) await push(name, 'v1', 'one')
    for (const name of ['seen/b', 'hidden/b']) await api.call('DELETE', `/repositories/${name}`)
    const names = async (path: string): Promise<unknown[]> => (await api.list(path, viewer)).map(({ name }) => name)
    assert.deepEqual(await names('/repositories?limit=1'), ['seen/a'])
    assert.deepEqual(await names('/deleted-repositories?limit=1'), ['seen/b'])
    assert.equal((await api.call('GET', '/repositories/hidden/a', undefined, viewer)).status, 403)
    assert.equal((await post('/repository-undeletions', { repository: 'seen/b' }, viewer)).status, 403)
  })
})

void suite('the history of a tag over HTTP', () => {
  test('is paged, newest first, and rolled back along', async () => {
    const digests = ['one', 'two', 'three'].map(text => textIndex(text).digest)
    for (const text of ['one', 'two', 'three']) await push('past/app', 'v1', text)
    const entries = await api.list('/tag-history?repository=past/app&tag=v1&limit=1')
    assert.deepEqual(
      entries.map(({ from, to, by, action }) => [from, to, by, action]),
      [
        [digests[1], digests[2], 'admin', 'push'],
        [digests[0], digests[1], 'admin', 'push'],
        [null, digests[0], 'admin', 'push'],
      ],
    )
    const rollBack = async (target: object): Promise<ApiAnswer> =>
      await post('/tag-rollbacks', { repository: 'past/app', tag: 'v1', ...target })
    assert.deepEqual((await rollBack({})).body, { from: digests[2], to: digests[1] })
    assert.deepEqual((await rollBack({ to: digests[0] })).body, { from: digests[1], to: digests[0] })
    assert.equal(await pull('past/app', 'v1'), digests[0])
    assert.equal((await rollBack({ steps: 100 })).status, 404)
    assert.equal((await rollBack({ steps: 1, to: digests[0] })).status, 400)
    assert.equal((await rollBack({ to: 'latest' })).status, 400)
    assert.equal((await audited('tag.rollback')).length, 2)
    assert.equal((await api.call('GET', '/tag-history?repository=past/app')).status, 400)
  })
})
