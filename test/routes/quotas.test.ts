import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, suite, test } from 'node:test'
import { RegistryClient, imageOf } from '../support/client.ts'
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
  const json = async (...args: string[]): Promise<unknown> => JSON.parse(await said(...args, '--json'))
  const refused = async (answer: Response): Promise<Readonly<Record<string, unknown>>> => {
    assert.equal(answer.status, 403)
    const [error] = ((await answer.json()) as Denied).errors
    assert.equal(error?.code, 'DENIED')
    return error?.detail ?? {}
  }

  test('a blob that does not fit is refused by its announced length before its bytes are read, and with the numbers (403 DENIED: distribution-spec, Error Codes)', async () => {
    await said('quota', 'set', 'small/**', '1kB')
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
    await said('quota', 'set', 'full/a', '1kB')
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
    await said('quota', 'set', 'near/**', '100kB')
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
    const {
      createdAt: _at,
      createdBy: _by,
      ...shown
    } = (await json('quota', 'show', 'team/**')) as typeof quota & Record<string, unknown>
    assert.deepEqual(shown, quota)
    const list = (await json('quota', 'list')) as (typeof quota)[]
    assert.deepEqual(
      list.filter(({ pattern }) => pattern === 'team/**').map(({ measure, limitBytes }) => [measure, limitBytes]),
      [
        ['logical', 2e9],
        ['physical', 2 ** 30],
      ],
    )
    assert.match(await said('quota', 'list'), /^PATTERN +MEASURE +USED +LIMIT +FULL/)
    await said('quota', 'delete', 'team/**')
    await said('quota', 'delete', 'team/**', '--physical')
    assert.match((await run('quota', 'show', 'team/**')).stderr, /there is no logical quota of team\/\*\*/)
    assert.match((await run('quota', 'set', 'team/**', 'much')).stderr, /write a size such as 500GB/)
    assert.match((await run('quota', 'set', 'Team', '1GB')).stderr, /a pattern is a repository name/)
  })

  test('usage tells what is a repository’s own and what it shares, the largest first', async () => {
    const shared = randomBytes(3000)
    for (const name of ['use/a', 'use/b']) await registry.pushBlob(name, shared)
    await registry.pushBlob('use/b', randomBytes(500))
    await registry.pushImage('use/b', 'v1')
    const usage = async () => (await json('usage', 'use/**')) as { repository: string; [key: string]: unknown }[]
    const rows = await usage()
    const b = rows.find(({ repository }) => repository === 'use/b')
    assert.ok(b !== undefined)
    const own = Number(b['blobBytes']) - 3000
    assert.deepEqual([b['ownBytes'], b['sharedBytes'], b['manifests'], b['tags']], [own - 2, 3002, 1, 1])
    assert.match(await said('usage', 'use/**'), /^REPOSITORY +SIZE +OWN +SHARED +GROWTH +BLOBS +MANIFESTS +TAGS\n/)
    assert.match(await said('usage', '--total'), /^\d+ repositories, .*\nlogical {3}.*\nphysical  .*\n\nSTORE/)
    const total = (await json('usage', '--total')) as { stores: { blobs: number }[]; logicalBytes: number }
    assert.equal(total.stores.length, 1)
    assert.ok(total.logicalBytes > 6000)
  })
})
