import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, afterEach, before, suite, test } from 'node:test'
import pg from 'pg'
import { sign } from '../../src/mirror/peers.ts'
import { type BlobUpstream, startBlobUpstream } from '../support/blob-upstream.ts'
import { digestOf } from '../support/client.ts'
import { until } from '../support/clients.ts'
import { type TestDatabase, type TestServer, createDatabase, startServer } from '../support/server.ts'

const MiB = 1024 * 1024

void suite('processes on one Postgres and what they may take from each other', () => {
  let upstream: BlobUpstream
  let database: TestDatabase
  const servers: TestServer[] = []

  before(async () => {
    upstream = await startBlobUpstream()
    const made = await createDatabase()
    assert.ok(made !== undefined, 'BERTH_TEST_POSTGRES names no server: run npm run test:postgres')
    database = made
  })
  afterEach(async () => {
    upstream.gate = Infinity
    upstream.asked.splice(0)
    await Promise.all(servers.splice(0).map(server => server.stop()))
  })
  after(async () => {
    await database.drop()
    await upstream.close()
  })

  async function start(env: Readonly<Record<string, string>>): Promise<TestServer> {
    const mirrors = { m: { url: upstream.url, allowPrivate: true, namespaces: [] } }
    const server = await startServer({
      databaseUrl: database.url,
      env: { BERTH_MIRROR_UPSTREAMS: JSON.stringify(mirrors), ...env },
    })
    servers.push(server)
    return server
  }

  function offer(): { readonly content: Buffer; readonly digest: string } {
    const content = randomBytes(2 * MiB)
    const digest = digestOf(content)
    upstream.blobs.set(digest, content)
    return { content, digest }
  }

  async function pull(server: TestServer, digest: string): Promise<Buffer> {
    return Buffer.from(await (await fetch(`${server.url}/v2/m/a/blobs/${digest}`)).arrayBuffer())
  }

  /** Rows of fetches under way. */
  async function underWay(digest: string): Promise<readonly { readonly id: string; readonly key: string }[]> {
    const client = new pg.Client({ connectionString: database.url })
    await client.connect()
    try {
      const found = await client.query<{ id: string; key: string }>(
        'select id, key from mirror_fetch where digest = $1',
        [digest],
      )
      return found.rows
    } finally {
      await client.end()
    }
  }

  const ways = [
    ['without an address or a directory in common', {}],
    ['with addresses at which nobody is', { BERTH_CLUSTER_INTERNAL_URL: 'http://127.0.0.1:1' }],
  ] as const
  for (const [what, env] of ways) {
    void test(`${what} each process fetches for those who ask it, and all get what is right`, async () => {
      const [one, two] = await Promise.all([start(env), start(env)])
      const { content, digest } = offer()
      upstream.gate = MiB
      const pulls = [pull(one, digest), pull(two, digest)]
      await until('both have asked the upstream', async () => upstream.asked.length === 2)
      upstream.gate = Infinity
      for (const bytes of await Promise.all(pulls)) assert.ok(bytes.equals(content))
    })
  }

  void test('a fetch under way is given to who signs with its key and to nobody else, whatever they may pull', async () => {
    const password = 'a password of the tests'
    const server = await start({
      BERTH_CLUSTER_INTERNAL_URL: 'http://127.0.0.1:0',
      BERTH_AUTH_MODE: 'token',
      BERTH_AUTH_ADMIN_PASSWORD: password,
    })
    const basic = `Basic ${Buffer.from(`admin:${password}`).toString('base64')}`
    const asked = await fetch(`${server.url}/token?service=berth&scope=repository:m/a:pull`, {
      headers: { Authorization: basic },
    })
    const { token } = (await asked.json()) as { token: string }
    const { content, digest } = offer()
    upstream.gate = MiB
    const pulled = fetch(`${server.url}/v2/m/a/blobs/${digest}`, { headers: { Authorization: `Bearer ${token}` } })
    await until('the fetch is under way', async () => (await underWay(digest)).length === 1)
    const [row] = await underWay(digest)
    assert.ok(row !== undefined)
    const { id, key } = row
    const other = '11111111-1111-4111-8111-111111111111'
    const good = sign(key, id, Date.now())
    const refused: readonly [string, Readonly<Record<string, string>>][] = [
      [id, {}],
      [id, { Authorization: `Bearer ${token}` }],
      [id, { Authorization: basic }],
      [id, { 'Berth-Signature': key }],
      [id, { 'Berth-Signature': sign(key, other, Date.now()) }],
      [id, { 'Berth-Signature': sign('00'.repeat(32), id, Date.now()) }],
      [id, { 'Berth-Signature': sign(key, id, Date.now() - 3_600_000) }],
      [other, { 'Berth-Signature': sign(key, other, Date.now()) }],
    ]
    for (const [fetchId, headers] of refused) {
      const answer = await fetch(`${server.url}/internal/fetches/${fetchId}`, { headers })
      assert.deepEqual([answer.status, (await answer.text()).includes('NOT_FOUND')], [404, true])
    }
    const answer = await fetch(`${server.url}/internal/fetches/${id}?from=1000`, {
      headers: { 'Berth-Signature': good },
    })
    assert.deepEqual([answer.status, answer.headers.get('berth-blob-size')], [200, String(content.byteLength)])
    upstream.gate = Infinity
    assert.ok(Buffer.from(await answer.arrayBuffer()).equals(content.subarray(1_000)))
    assert.ok(Buffer.from(await (await pulled).arrayBuffer()).equals(content))
    const said = JSON.stringify(server.log)
    assert.ok(said.includes(`/internal/fetches/${id}`))
    for (const secret of [key, good.slice(-64)]) assert.ok(!said.includes(secret))
    await until('the fetch is over', async () => (await underWay(digest)).length === 0)
    const late = await fetch(`${server.url}/internal/fetches/${id}`, { headers: { 'Berth-Signature': good } })
    assert.equal(late.status, 404)
  })

  void test('a process that stops in order gives up what it fetches, and the next request is served', async () => {
    const env = { BERTH_CLUSTER_INTERNAL_URL: 'http://127.0.0.1:0', BERTH_HTTP_SHUTDOWN_TIMEOUT: '0s' }
    const [one, two] = await Promise.all([start(env), start(env)])
    const { content, digest } = offer()
    upstream.gate = MiB
    const cut = assert.rejects(pull(one, digest))
    await until('the fetch is under way', async () => upstream.asked.length === 1)
    const followed = pull(two, digest)
    servers.splice(servers.indexOf(one), 1)
    await one.stop()
    await cut
    upstream.gate = Infinity
    assert.ok((await followed).equals(content))
    assert.ok(upstream.asked.length <= 2)
    await until('nothing is left of it', async () => (await underWay(digest)).length === 0)
  })
})
