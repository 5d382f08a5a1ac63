import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { type IncomingMessage, get } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, suite, test } from 'node:test'
import pg from 'pg'
import { type BlobUpstream, startBlobUpstream } from '../support/blob-upstream.ts'
import { until } from '../support/clients.ts'
import { digestOf } from '../support/client.ts'
import { type TestDatabase, type TestServer, createDatabase, startServer } from '../support/server.ts'

const MiB = 1024 * 1024
/** 200 is what a large layer has; a hundred of them take a slow machine many minutes. */
const LAYER_MIB = Number(process.env['BERTH_TEST_LAYER_MIB'] ?? 20)
const CLIENTS = 100
const LIMIT_MS = 600_000

/** How two processes reach each other's fetches. */
interface Way {
  readonly what: string
  readonly env: Readonly<Record<string, string>>
  readonly sharesDirectory: boolean
}

const WAYS: readonly Way[] = [
  {
    what: 'by their internal addresses',
    env: { BERTH_CLUSTER_INTERNAL_URL: 'http://127.0.0.1:0' },
    sharesDirectory: false,
  },
  { what: 'by a data directory that they share', env: {}, sharesDirectory: true },
]

for (const way of WAYS) {
  void suite(`processes share one fetch of a blob ${way.what} (distribution-spec, "Registry Proxying")`, () => {
    let upstream: BlobUpstream
    let database: TestDatabase
    let directory: string
    const servers: TestServer[] = []

    before(async () => {
      upstream = await startBlobUpstream()
      const made = await createDatabase()
      assert.ok(made !== undefined, 'BERTH_TEST_POSTGRES names no server: run npm run test:postgres')
      database = made
      directory = await mkdtemp(join(tmpdir(), 'berth-share-'))
      await Promise.all([start(), start()])
    })
    afterEach(() => {
      upstream.gate = Infinity
      upstream.answer = () => false
      upstream.asked.splice(0)
    })
    after(async () => {
      await Promise.all(servers.map(server => server.stop()))
      await database.drop()
      await upstream.close()
      await rm(directory, { recursive: true, force: true })
    })

    async function start(): Promise<TestServer> {
      const server = await startServer({
        databaseUrl: database.url,
        ...(way.sharesDirectory ? { dataDir: directory } : {}),
        env: {
          ...way.env,
          // Processes need only the spool in common; content may lie anywhere that they share.
          BERTH_STORAGE_FILESYSTEM_DIRECTORY: join(directory, 'content'),
          BERTH_MIRROR_UPSTREAMS: JSON.stringify({ m: { url: upstream.url, allowPrivate: true, namespaces: [] } }),
        },
      })
      servers.push(server)
      return server
    }

    /** Kills a process and starts another in its place. */
    async function replace(server: TestServer): Promise<void> {
      servers.splice(servers.indexOf(server), 1)
      await Promise.all([server.stop().catch(() => undefined), start()])
    }

    /** The process that fetches the blob now, and another. */
    async function pairOf(digest: string): Promise<readonly [TestServer, TestServer]> {
      const [one, two] = servers
      assert.ok(one !== undefined && two !== undefined)
      const asked = gets(digest).length
      new Pull(one, digest)
      await reached(() => gets(digest).length > asked)
      return [one, two]
    }

    const gets = (digest: string): readonly (string | undefined)[] =>
      upstream.asked.filter(ask => ask.digest === digest && ask.method === 'GET').map(({ range }) => range ?? 'all')

    function offer(bytes: number): { readonly content: Buffer; readonly digest: string } {
      const content = randomBytes(bytes)
      const digest = digestOf(content)
      upstream.blobs.set(digest, content)
      return { content, digest }
    }

    /** One client's way to a blob. */
    class Pull {
      received = 0
      readonly #hash = createHash('sha256')
      readonly #done: Promise<string>

      constructor(server: TestServer, digest: string, others: readonly TestServer[] = []) {
        this.#done = this.#run([server, ...others], digest)
        // Which of several pulls breaks off first is nobody's to say; whoever awaits one is told all the same.
        this.#done.catch(() => undefined)
      }

      /** The digest of what came. */
      get done(): Promise<string> {
        return this.#done
      }

      /** Goes on at the next process where one breaks off, as containerd does, by Range. */
      async #run([server, ...others]: readonly TestServer[], digest: string): Promise<string> {
        assert.ok(server !== undefined)
        try {
          const answer = await open(server, digest, this.received)
          for await (const chunk of answer) {
            const bytes = chunk as Buffer
            this.received += bytes.byteLength
            this.#hash.update(bytes)
          }
          if (!answer.complete) throw new Error('broken off')
          return `sha256:${this.#hash.digest('hex')}`
        } catch (error) {
          if (others.length === 0) throw error
          return await this.#run(others, digest)
        }
      }
    }

    void test(`${CLIENTS} clients at once for ${LAYER_MIB} MiB over two processes cost the upstream one GET`, async () => {
      const { digest } = offer(LAYER_MIB * MiB)
      const pulls = Array.from({ length: CLIENTS }, (_, index) => new Pull(at(index), digest))
      for (const pull of pulls) assert.equal(await pull.done, digest)
      assert.deepEqual(gets(digest), ['all'])
    })

    void test('when the process that fetches is killed half-way, the other goes on by Range where it is, once', async () => {
      const { content, digest } = offer(LAYER_MIB * MiB)
      upstream.gate = content.byteLength / 2
      const [owner, other] = await pairOf(digest)
      const staying = Array.from({ length: CLIENTS / 2 }, () => new Pull(other, digest))
      const moving = Array.from({ length: CLIENTS / 2 }, () => new Pull(owner, digest, [other]))
      const pulls = [...staying, ...moving]
      await reached(() => pulls.every(pull => pull.received === upstream.gate))
      const half = upstream.gate
      owner.kill()
      await reached(() => gets(digest).length === 2)
      upstream.gate = Infinity
      for (const pull of pulls) assert.equal(await pull.done, digest)
      assert.deepEqual(gets(digest), ['all', `bytes=${half}-`])
      await replace(owner)
    })

    void test('when the process that fetches hangs, the other goes on, and both give what is right once it wakes', async () => {
      const { content, digest } = offer(4 * MiB)
      upstream.gate = content.byteLength / 2
      const [owner, other] = await pairOf(digest)
      const pulls = [new Pull(owner, digest), new Pull(other, digest)]
      await reached(() => pulls.every(pull => pull.received === upstream.gate))
      const half = upstream.gate
      owner.process.kill('SIGSTOP')
      try {
        await reached(() => gets(digest).length === 2)
        upstream.gate = Infinity
        assert.equal(await pulls[1]?.done, digest)
        assert.deepEqual(gets(digest), ['all', `bytes=${half}-`])
        assert.equal(await new Pull(other, digest).done, digest)
      } finally {
        owner.process.kill('SIGCONT')
      }
      assert.equal(await pulls[0]?.done, digest)
      assert.equal(await new Pull(owner, digest).done, digest)
    })

    void test('killed in turn, no process leaves a wrong blob, and the next request succeeds', async () => {
      const { content, digest } = offer(8 * MiB)
      for (const share of [0.25, 0.5, 0.75]) {
        upstream.gate = content.byteLength * share
        const [owner, other] = await pairOf(digest)
        const pull = new Pull(other, digest)
        await reached(() => pull.received > 0)
        owner.kill()
        other.kill()
        await assert.rejects(pull.done)
        await Promise.all([replace(owner), replace(other)])
      }
      upstream.gate = Infinity
      for (let index = 0; index < 2; index += 1) assert.equal(await new Pull(at(index), digest).done, digest)
    })

    void test('whoever leaves does not end the fetch while clients of the other process wait', async () => {
      const { content, digest } = offer(4 * MiB)
      upstream.gate = content.byteLength / 4
      const [owner, other] = await pairOf(digest)
      const leaving = await open(owner, digest, 0)
      const pull = new Pull(other, digest)
      await reached(() => pull.received === upstream.gate)
      leaving.destroy()
      upstream.gate = Infinity
      assert.equal(await pull.done, digest)
      assert.deepEqual(gets(digest), ['all'])
    })

    void test('a range of what is on its way to another process comes before the whole is here (RFC 9110 section 14)', async () => {
      const { content, digest } = offer(4 * MiB)
      upstream.gate = content.byteLength / 2
      const [, other] = await pairOf(digest)
      const answer = await fetch(`${other.url}/v2/m/a/blobs/${digest}`, { headers: { Range: 'bytes=1000-1999' } })
      assert.equal(answer.status, 206)
      assert.ok(Buffer.from(await answer.arrayBuffer()).equals(content.subarray(1_000, 2_000)))
      upstream.gate = Infinity
      assert.equal(await new Pull(other, digest).done, digest)
      assert.deepEqual(gets(digest), ['all'])
    })

    void test('content that is not what its digest says ends the transfers of both processes, and nothing is kept', async () => {
      const { content, digest } = offer(2 * MiB)
      upstream.blobs.set(digest, Buffer.concat([content.subarray(1), Buffer.alloc(1)]))
      upstream.gate = content.byteLength / 2
      const [owner, other] = await pairOf(digest)
      const pulls = [new Pull(owner, digest), new Pull(other, digest)]
      await reached(() => pulls.every(pull => pull.received > 0))
      upstream.gate = Infinity
      for (const pull of pulls) await assert.rejects(pull.done)
      upstream.blobs.set(digest, content)
      for (const server of servers) assert.equal(await new Pull(server, digest).done, digest)
    })

    void test('what the upstream does not have is 404 at both, and nothing is left of it all', async () => {
      const digest = digestOf(randomBytes(8))
      const answers = await Promise.all(servers.map(server => fetch(`${server.url}/v2/m/a/blobs/${digest}`)))
      assert.deepEqual(
        answers.map(({ status }) => status),
        [404, 404],
      )
      await reached(async () => (await countFetches(database.url)) === 0)
    })

    const at = (index: number): TestServer => {
      const server = servers[index % servers.length]
      assert.ok(server !== undefined)
      return server
    }
  })
}

async function open(server: TestServer, digest: string, from: number): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
  const headers = from === 0 ? {} : { Range: `bytes=${from}-` }
  get(`${server.url}/v2/m/a/blobs/${digest}`, { agent: false, headers }, resolve).on('error', reject)
  const answer = await promise
  if (answer.statusCode !== (from === 0 ? 200 : 206)) {
    answer.destroy()
    throw new Error(`answered ${answer.statusCode}`)
  }
  return answer
}

async function reached(condition: () => boolean | Promise<boolean>): Promise<void> {
  await until(String(condition), async () => await condition(), LIMIT_MS)
}

async function countFetches(url: string): Promise<number> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    const living = 'select 1 from mirror_fetch where lease_until > clock_timestamp()'
    return (await client.query(living)).rowCount ?? 0
  } finally {
    await client.end()
  }
}
