import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { after, afterEach, before, suite, test } from 'node:test'
import { administerOf } from '../support/access.ts'
import { OCI_LAYER, RegistryClient, digestOf, imageOf } from '../support/client.ts'
import { type TestDatabase, type TestServer, createDatabase, startServer } from '../support/server.ts'
import { askForRun, ended, itemsOf, runOf, syncsOf } from '../support/sync.ts'
import { type UpstreamProxy, startUpstreamProxy } from '../support/upstream-proxy.ts'

const MiB = 1024 * 1024

void suite('a sync whose process dies, is stopped, or has a second beside it', () => {
  let origin: TestServer
  let upstream: RegistryClient
  let proxy: UpstreamProxy
  let work: string
  let env: Readonly<Record<string, string>>
  let database: TestDatabase | undefined
  const started: TestServer[] = []

  before(async () => {
    work = await mkdtemp(join(tmpdir(), 'berth-test-sync-'))
    origin = await startServer()
    upstream = new RegistryClient(origin.url)
    proxy = await startUpstreamProxy(origin.url)
    const common = { direction: 'pull', url: proxy.url, allowPrivate: true, addPrefix: 'copy', maxConcurrent: 1 }
    env = syncsOf({
      killed: { ...common, repositories: ['killed/a', 'killed/b', 'killed/c'] },
      parts: { ...common, repositories: ['parts'] },
      stopped: { ...common, repositories: ['stopped'] },
    })
    database = await createDatabase()
  })
  afterEach(() => {
    proxy.whim = () => undefined
    proxy.resume()
    proxy.seen.splice(0)
  })
  after(async () => {
    for (const server of started) if (server.process.exitCode === null) server.kill()
    await Promise.all(started.map(server => server.stop().catch(() => undefined)))
    await proxy.close()
    await origin.stop()
    await database?.drop()
    await rm(work, { recursive: true, force: true })
  })

  /** A process on the same data, and where there is Postgres on the same database. */
  async function start(): Promise<TestServer> {
    const shared = database === undefined ? {} : { databaseUrl: database.url }
    const server = await startServer({ dataDir: join(work, 'data'), ...shared, env })
    started.push(server)
    return server
  }
  async function killed(server: TestServer): Promise<void> {
    const gone = new Promise(resolve => server.process.once('close', resolve))
    server.kill()
    await gone
  }
  async function pushLayered(name: string, tag: string, layer: Uint8Array<ArrayBuffer>): Promise<string> {
    await upstream.pushBlob(name, '{}')
    const digest = await upstream.pushBlob(name, layer)
    return await upstream.pushManifest(
      name,
      tag,
      imageOf({ layers: [{ mediaType: OCI_LAYER, digest, size: layer.byteLength }] }),
    )
  }
  const seenOf = (digest: string): string[] =>
    proxy.seen.filter(({ method, path }) => method === 'GET' && path.endsWith(digest)).map(({ path }) => path)
  async function until(what: () => boolean | Promise<boolean>): Promise<void> {
    while (!(await what())) await delay(20)
  }

  test('a run whose process is killed is gone on with, and no blob that was here is fetched twice', async () => {
    const layers = new Map<string, Uint8Array<ArrayBuffer>>()
    for (const name of ['killed/a', 'killed/b', 'killed/c']) {
      layers.set(name, randomBytes(MiB))
      await pushLayered(name, 'v1', layers.get(name) ?? randomBytes(1))
    }
    const [first, second] = ['killed/a', 'killed/b'].map(name => digestOf(layers.get(name) ?? ''))
    const one = await start()
    proxy.whim = ({ path }) => (path.endsWith(second ?? '') ? 'stall' : undefined)
    const id = await askForRun(one, 'killed')
    await until(() => seenOf(second ?? '').length > 0)
    assert.equal((await itemsOf(one, id))['killed/a:v1']?.outcome, 'copied')
    await killed(one)
    proxy.whim = () => undefined
    proxy.resume()
    const two = await start()
    const run = await ended(two, id)
    assert.deepEqual([run.state, run.copied, run.failed], ['done', 3, 0], JSON.stringify(await itemsOf(two, id)))
    assert.equal(seenOf(first ?? '').length, 1)
    const client = new RegistryClient(two.url)
    for (const [name, layer] of layers) {
      const blob = await client.ask(`/v2/copy/${name}/blobs/${digestOf(layer)}`)
      assert.ok(Buffer.from(await blob.arrayBuffer()).equals(layer))
    }
    await two.stop()
  })

  test('a process that stops in order parks a blob that has come in part, and the next asks for the rest (RFC 9110 section 14)', async () => {
    const layer = randomBytes(8 * MiB)
    await pushLayered('parts', 'v1', layer)
    const one = await start()
    let stalls = 0
    proxy.whim = ({ path }) => (path.endsWith(digestOf(layer)) && (stalls += 1) === 1 ? 'stall' : undefined)
    const id = await askForRun(one, 'parts')
    await until(async () => (await itemsOf(one, id))['parts:v1']?.bytes !== 0)
    const gone = new Promise(resolve => one.process.once('close', resolve))
    one.process.kill('SIGTERM')
    await gone
    proxy.resume()
    const two = await start()
    const run = await ended(two, id)
    assert.deepEqual([run.state, run.copied], ['done', 1], JSON.stringify(await itemsOf(two, id)))
    const ranges = proxy.seen.filter(({ path }) => path.endsWith(digestOf(layer))).map(({ headers }) => headers.range)
    assert.equal(ranges.length, 2)
    assert.match(String(ranges[1]), /^bytes=[1-9]\d*-$/)
    const blob = await new RegistryClient(two.url).ask(`/v2/copy/parts/blobs/${digestOf(layer)}`)
    assert.ok(Buffer.from(await blob.arrayBuffer()).equals(layer))
    await two.stop()
  })

  test('one run of a sync is under way at a time, it can be stopped, and then the next begins', async () => {
    const layer = randomBytes(MiB)
    await pushLayered('stopped', 'v1', layer)
    const server = await start()
    proxy.whim = ({ path }) => (path.endsWith(digestOf(layer)) ? 'stall' : undefined)
    const id = await askForRun(server, 'stopped')
    await until(() => seenOf(digestOf(layer)).length > 0)
    await assert.rejects(askForRun(server, 'stopped'), /409.*under way/)
    const administer = await administerOf(server)
    await administer('DELETE', '/syncs/stopped/run')
    assert.equal((await runOf(server, id)).state, 'stopped')
    proxy.whim = () => undefined
    const next = await askForRun(server, 'stopped')
    assert.deepEqual((await ended(server, next)).copied, 1)
    await server.stop()
  })
})
