import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, suite, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { until } from '../support/clients.ts'
import {
  assertBytes,
  assertUnavailable,
  close,
  manifestOf,
  offsetOf,
  openUpload,
  patch,
  pushBlob,
  putManifest,
  sha256,
} from '../support/push.ts'
import { openConnection } from '../support/raw-connection.ts'
import { type TestDatabase, type TestServer, createDatabase, startServer } from '../support/server.ts'
import { type TcpProxy, openProxy } from '../support/tcp-proxy.ts'

const OUTAGE_MS = 5_000
const POOL_SIZE = 4

void suite('a Postgres that is gone for five seconds (RFC 9110 section 15.6.4)', () => {
  let database: TestDatabase
  let proxy: TcpProxy
  let server: TestServer

  before(async () => {
    const made = await createDatabase()
    assert.ok(made !== undefined, 'BERTH_TEST_POSTGRES names no server: run npm run test:postgres')
    database = made
    const real = new URL(database.url)
    proxy = await openProxy(Number(real.port))
    const through = new URL(database.url)
    through.port = String(proxy.port)
    server = await startServer({ databaseUrl: through.href, env: { BERTH_DATABASE_POOL_SIZE: String(POOL_SIZE) } })
  })
  after(async () => {
    await server.stop()
    await proxy.close()
    await database.drop()
  })

  const readiness = async (): Promise<number> => {
    const answer = await fetch(`${server.url}/readyz`)
    await answer.arrayBuffer()
    return answer.status
  }

  void test('is 503 meanwhile, loses nothing acknowledged, and is served again without a restart', async () => {
    const { url } = server
    const config = Buffer.from('{}')
    const layer = randomBytes(400_000)
    for (const bytes of [config, layer]) await pushBlob(url, 'outage/a', bytes)
    const manifest = manifestOf(config, [layer])
    assert.equal((await putManifest(url, 'outage/a', 'v1', manifest)).status, 201)
    const parked = randomBytes(300_000)
    const location = await openUpload(url, 'outage/a')
    assert.equal((await patch(location, parked.subarray(0, 100_000), 0)).status, 202)
    // A push whose body is on its way while the index goes.
    const moving = randomBytes(200_000)
    const movingTo = await openUpload(url, 'outage/a')
    const connection = await openConnection(Number(new URL(url).port))
    connection.write(
      `PUT ${new URL(movingTo).pathname}?digest=${sha256(moving)} HTTP/1.1\r\nHost: x\r\nContent-Length: ${moving.byteLength}\r\n\r\n`,
    )
    connection.write(moving.subarray(0, 150_000))
    assert.equal(await readiness(), 200)

    proxy.cut()
    const end = performance.now() + OUTAGE_MS
    connection.write(moving.subarray(150_000))
    const refused = await connection.answer()
    assert.equal(refused.status, 503)
    assert.match(refused.headers.get('retry-after') ?? '', /^\d+$/)
    connection.socket.destroy()
    let asked = 0
    while (performance.now() < end) {
      assert.equal(await readiness(), 503)
      const answers = await Promise.all([
        fetch(`${url}/v2/outage/a/manifests/v1`),
        fetch(`${url}/v2/outage/a/blobs/${sha256(layer)}`),
        fetch(`${url}/v2/outage/a/blobs/uploads/`, { method: 'POST' }),
        patch(location, parked.subarray(100_000), 100_000),
        close(location, sha256(parked), parked.subarray(100_000)),
        putManifest(url, 'outage/a', 'v2', manifest),
        fetch(`${url}/v2/outage/a/manifests/v1`, { method: 'DELETE' }),
        fetch(`${url}/v2/outage/a/tags/list`),
      ])
      for (const answer of answers) await assertUnavailable(answer)
      asked += answers.length
      await delay(100)
    }
    assert.ok(asked > 0)
    assert.equal((await fetch(`${url}/healthz`)).status, 200)

    proxy.mend()
    await until('the registry is ready', async () => (await readiness()) === 200)
    assert.equal(await (await fetch(`${url}/v2/outage/a/manifests/v1`)).text(), manifest)
    await assertBytes(await fetch(`${url}/v2/outage/a/blobs/${sha256(layer)}`), layer)
    assert.equal(await offsetOf(location), 100_000)
    assert.equal((await close(location, sha256(parked), parked.subarray(100_000))).status, 201)
    // Its lease could not be let go of, so this waits until it has run out.
    const held = await offsetOf(movingTo)
    assert.equal((await close(movingTo, sha256(moving), moving.subarray(held))).status, 201)
    const got = await fetch(`${url}/v2/outage/a/blobs/${sha256(moving)}`)
    await assertBytes(got, moving)
  })

  void test('leaves no connection behind: the pool still has all of its places', async () => {
    const stat = `${server.url}/v2/outage/a/manifests/v1`
    const answers = await Promise.all(Array.from({ length: 50 }, () => fetch(stat, { method: 'HEAD' })))
    assert.ok(answers.every(answer => answer.status === 200))
    await until('no more connections than the pool may have', async () => proxy.open <= POOL_SIZE)
    const client = new pg.Client(database.url)
    await client.connect()
    try {
      // A transaction that nobody ends would hold its locks for ever.
      await until('no transaction was left open', async () => {
        const { rows } = await client.query<{ stuck: number }>(
          `select count(*)::int as stuck from pg_stat_activity
            where datname = current_database() and pid <> pg_backend_pid() and state like 'idle in transaction%'`,
        )
        return rows[0]?.stuck === 0
      })
    } finally {
      await client.end()
    }
    const pushes = Array.from({ length: 20 }, () => pushBlob(server.url, 'outage/b', randomBytes(1_000)))
    assert.equal((await Promise.all(pushes)).length, 20)
  })
})
