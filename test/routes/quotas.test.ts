import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, suite, test } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import { administerOf } from '../support/access.ts'
import { RegistryClient, imageOf } from '../support/client.ts'
import { until } from '../support/clients.ts'
import { berth } from '../support/command.ts'
import { type TestServer, startServer } from '../support/server.ts'

interface Denied {
  readonly errors: readonly { readonly code: string; readonly detail: Readonly<Record<string, unknown>> }[]
}

void suite('quotas and usage, as clients and administrators see them', () => {
  let server: TestServer
  let registry: RegistryClient
  before(async () => {
    server = await startServer()
    registry = new RegistryClient(server.url)
  })
  after(() => server.stop())

  const run = (...args: string[]) => berth(args, { env: { BERTH_DATA_DIR: server.dataDir } })
  const said = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await run(...args)
    assert.equal(code, 0, `${args.join(' ')}: ${stderr}`)
    return stdout
  }
  const setQuota = async (pattern: string, limitBytes: number): Promise<unknown> =>
    await (
      await administerOf(server)
    )('PUT', `/quotas/logical/${encodeURIComponent(pattern)}`, { limitBytes })
  const refused = async (answer: Response): Promise<Readonly<Record<string, unknown>>> => {
    assert.equal(answer.status, 403)
    const [error] = ((await answer.json()) as Denied).errors
    assert.equal(error?.code, 'DENIED')
    return error?.detail ?? {}
  }

  test('a blob that does not fit is refused by its announced length before its bytes are read, and with the numbers (403 DENIED: distribution-spec, Error Codes)', async () => {
    await setQuota('small/**', 1000)
    const location = await registry.startUpload('small/a')
    const answer = await registry.ask(location, { method: 'PATCH', body: randomBytes(1001) })
    assert.deepEqual(await refused(answer), {
      quota: 'small/**',
      measure: 'logical',
      used: 0,
      reserved: 0,
      asked: 1001,
      limit: 1000,
    })
    assert.equal((await registry.ask(location, { method: 'GET' })).headers.get('range'), '0-0')
  })

  test('a full repository opens no session, and says so to a push in one request too', async () => {
    await setQuota('full/a', 1000)
    const bytes = randomBytes(1000)
    const digest = await registry.pushBlob('full/a', bytes)
    const post = async (query: string, body?: Buffer<ArrayBuffer>): Promise<Response> =>
      await registry.ask(`/v2/full/a/blobs/uploads/${query}`, { method: 'POST', body: body ?? null })
    assert.equal((await refused(await post('')))['used'], 1000)
    const again = await post(`?digest=${digest}`, bytes)
    assert.equal(again.status, 201, 'what is there costs nothing')
    const other = randomBytes(10)
    const wanted = `sha256:${await crypto.subtle.digest('SHA-256', other).then(sum => Buffer.from(sum).toString('hex'))}`
    await refused(await post(`?digest=${wanted}`, other))
  })

  test('a push that brings a quota to 90 % or more is told how full it is (distribution-spec, Warnings)', async () => {
    await setQuota('near/**', 100_000)
    await registry.pushBlob('near/a', '{}')
    const first = await registry.putManifest('near/a', 'v1', imageOf())
    assert.deepEqual([first.status, first.headers.get('warning')], [201, null])
    await registry.pushBlob('near/a', randomBytes(90_000))
    const second = await registry.putManifest('near/a', 'v2', imageOf({ annotations: { a: 'b' } }))
    assert.equal(second.status, 201)
    assert.match(second.headers.get('warning') ?? '', /^299 - "the quota of near\/\*\* is 9\d % full: 90\d+ of 100000 /)
  })

  test('quotas are set, shown with their use, listed and deleted', async () => {
    await registry.pushBlob('team/web', randomBytes(1_500_000))
    assert.equal(await said('quota', 'set', 'team/**', '2GB'), 'team/** uses 1.5 MB of 2.0 GB\n')
    await said('quota', 'set', 'team/**', '1GiB', '--physical')
    const quota = { pattern: 'team/**', measure: 'logical', limitBytes: 2e9, usedBytes: 1_500_000, counted: true }
    const shown = JSON.parse(await said('quota', 'show', 'team/**', '--json')) as typeof quota
    assert.deepEqual({ ...shown, ...quota }, shown)
    const list = await said('quota', 'list')
    assert.match(list, /^PATTERN +MEASURE +USED +LIMIT +FULL/)
    assert.match(list, /^team\/\*\* +logical +1\.5 MB +2\.0 GB +0 %/m)
    assert.match(list, /^team\/\*\* +physical +1\.5 MB +1\.1 GB +0 %/m)
    await said('quota', 'delete', 'team/**')
    assert.match((await run('quota', 'show', 'team/**')).stderr, /there is no logical quota of team\/\*\*/)
    assert.match((await run('quota', 'set', 'team/**', 'much')).stderr, /write a size such as 500GB/)
    await assert.rejects(setQuota('Team', 1), /a pattern is a repository name/)
  })

  test("usage tells what is a repository's own and what it shares, and of what all use together", async () => {
    const shared = randomBytes(3000)
    for (const name of ['use/a', 'use/b']) await registry.pushBlob(name, shared)
    await registry.pushBlob('use/b', randomBytes(500))
    await registry.pushImage('use/b', 'v1')
    const { items } = await (await administerOf(server))('GET', '/usage?pattern=use/b')
    const [b] = items as Record<string, unknown>[]
    const { blobBytes, ownBytes, sharedBytes, blobs, manifests, tags } = b ?? {}
    // Other tests have the blob {} too, or have not yet.
    const isShared = sharedBytes === 3002
    assert.deepEqual([ownBytes, sharedBytes], isShared ? [500, 3002] : [502, 3000])
    assert.deepEqual([blobBytes, blobs, manifests, tags], [3502, 3, 1, 1])
    assert.match(await said('usage', 'use/**'), /^REPOSITORY +SIZE +OWN +SHARED +GROWTH +BLOBS +MANIFESTS +TAGS\nuse\//)
    assert.match(await said('usage', '--total'), /^\d+ repositories, .*\nlogical {3}.*\nphysical {2}.*\n\nSTORE/)
  })

  test('pages of usage follow each other, the largest first, without a gap', async () => {
    const sizes = [900_000, 700_000, 800_000]
    for (const [index, size] of sizes.entries()) await registry.pushBlob(`page/r${index}`, randomBytes(size))
    const page = async (query: Record<string, string>): Promise<Record<string, unknown>> =>
      await (
        await administerOf(server)
      )('GET', `/usage?${new URLSearchParams({ pattern: 'page/*', ...query }).toString()}`)
    const namesOf = ({ items }: Record<string, unknown>): unknown[] =>
      (items as Record<string, unknown>[]).map(({ repository }) => repository)
    const largestFirst = ['page/r0', 'page/r2', 'page/r1']
    // The order follows the figures within seconds.
    await until('the list is in order', async () => isDeepStrictEqual(namesOf(await page({})), largestFirst))
    const names: unknown[] = []
    for (let last = ''; ;) {
      const answer = await page({ limit: '1', last })
      names.push(...namesOf(answer))
      const { next } = answer
      if (typeof next !== 'string') break
      last = next
    }
    assert.deepEqual(names, largestFirst)
  })
})
