import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { until } from '../support/clients.ts'
import { assertBytes, close, offsetIn, offsetOf, openUpload, patch, sha256, sha512 } from '../support/push.ts'
import { describeRaces } from '../support/races.ts'
import { openConnection } from '../support/raw-connection.ts'
import { type TestDatabase, type TestServer, createDatabase, startServer } from '../support/server.ts'

void suite('two processes on one Postgres and one directory', () => {
  let database: TestDatabase
  let dataDir: string
  let one: TestServer
  let two: TestServer
  let turn = 0

  const start = (): Promise<TestServer> => startServer({ databaseUrl: database.url, dataDir })
  before(async () => {
    const made = await createDatabase()
    assert.ok(made !== undefined, 'BERTH_TEST_POSTGRES names no server: run npm run test:postgres')
    database = made
    dataDir = await mkdtemp(join(tmpdir(), 'berth-two-'))
    ;[one, two] = await Promise.all([start(), start()])
  })
  after(async () => {
    await Promise.all([one.stop(), two.stop()])
    await database.drop()
    await rm(dataDir, { recursive: true, force: true })
  })

  describeRaces(() => ((turn += 1) % 2 === 0 ? one.url : two.url))

  const on = (server: TestServer, location: string): string => new URL(new URL(location).pathname, server.url).href

  const read = (server: TestServer, name: string, digest: string): Promise<Response> =>
    fetch(`${server.url}/v2/${name}/blobs/${digest}`)

  for (const digestOf of [sha256, sha512]) {
    void test(`an upload may change its process with every request (${digestOf('').slice(0, 6)})`, async () => {
      const bytes = randomBytes(900_000)
      const location = await openUpload(one.url, 'two/chunks')
      const parts = [bytes.subarray(0, 300_000), bytes.subarray(300_000, 600_000), bytes.subarray(600_000)]
      assert.equal((await patch(on(two, location), parts[0] ?? bytes, 0)).status, 202)
      assert.equal((await patch(on(one, location), parts[1] ?? bytes, 300_000)).status, 202)
      assert.equal((await patch(on(one, location), bytes, 0)).status, 416)
      const digest = digestOf(bytes)
      assert.equal((await close(on(two, location), digest, parts[2])).status, 201)
      await assertBytes(await read(one, 'two/chunks', digest), bytes)
    })
  }

  /** Begins a chunk on process `server` that never ends, and waits until a part of it lies in the session's file. */
  async function beginChunk(server: TestServer, location: string, bytes: Buffer) {
    const connection = await openConnection(Number(new URL(server.url).port))
    const { pathname } = new URL(location)
    connection.write(`PATCH ${pathname} HTTP/1.1\r\nHost: x\r\nContent-Length: ${bytes.byteLength * 2}\r\n\r\n`)
    connection.write(bytes)
    return connection
  }

  void test('a process that is stopped in the middle of a chunk does not reach the bytes of the one that takes over', async () => {
    const head = randomBytes(100_000)
    const location = await openUpload(one.url, 'two/stopped')
    assert.equal((await patch(on(one, location), head, 0)).status, 202)
    const late = await beginChunk(one, location, randomBytes(2_000_000))
    // Its lease is taken once another chunk has to wait for it.
    await until('the chunk holds the lease', async () => await isLeased())
    one.process.kill('SIGSTOP')
    try {
      const rest = randomBytes(4_000_000)
      const whole = Buffer.concat([head, rest])
      // Waits until the lease of the stopped process has run out.
      assert.equal((await patch(on(two, location), rest, head.byteLength)).status, 202)
      assert.equal((await close(on(two, location), sha256(whole))).status, 201)
      one.process.kill('SIGCONT')
      // The late writer goes on with what it has, and is told in the end.
      late.write(randomBytes(2_000_000))
      const answer = await late.answer()
      assert.ok([404, 503].includes(answer.status), `the late chunk was answered ${answer.status}`)
      await assertBytes(await read(one, 'two/stopped', sha256(whole)), whole)
    } finally {
      one.process.kill('SIGCONT')
      late.socket.destroy()
    }
  })

  async function isLeased(): Promise<boolean> {
    const { default: pg } = await import('pg')
    const client = new pg.Client(database.url)
    await client.connect()
    try {
      const { rows } = await client.query('select id from upload where lease_until > clock_timestamp()')
      return rows.length > 0
    } finally {
      await client.end()
    }
  }

  void test('when a process is killed in the middle of a chunk the other goes on at the reported offset', async () => {
    const head = randomBytes(150_000)
    const location = await openUpload(two.url, 'two/killed')
    assert.equal((await patch(on(two, location), head, 0)).status, 202)
    const dead = await beginChunk(two, location, randomBytes(500_000))
    await until('the chunk holds the lease', async () => await isLeased())
    two.kill()
    await assert.rejects(dead.answer())
    const offset = await offsetOf(on(one, location))
    assert.equal(offset, head.byteLength)
    const rest = randomBytes(200_000)
    const whole = Buffer.concat([head, rest])
    const resumed = await patch(on(one, location), rest, offset)
    assert.equal(resumed.status, 202)
    assert.equal(offsetIn(resumed), whole.byteLength)
    assert.equal((await close(on(one, location), sha256(whole))).status, 201)
    await assertBytes(await read(one, 'two/killed', sha256(whole)), whole)
    two = await start()
  })
})
