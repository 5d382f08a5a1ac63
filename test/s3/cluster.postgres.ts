import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { after, before, describe, test } from 'node:test'
import pg from 'pg'
import { expireUploads } from '../../src/gc/expire-uploads.ts'
import { purgeTrash } from '../../src/gc/purge.ts'
import { sweep } from '../../src/gc/sweep.ts'
import type { Database } from '../../src/metadata/database.ts'
import { parseName } from '../../src/oci/name.ts'
import { type Cluster, startCluster } from '../support/cluster.ts'
import { CRANE, layoutDescriptor, makeLayout, removeScratch, run, scratch, until } from '../support/clients.ts'
import { withDatabase } from '../support/database.ts'
import { type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts'
import {
  assertBytes,
  close,
  manifestOf,
  offsetOf,
  openUpload,
  patch,
  pushBlob,
  putManifest,
  sha256,
  sha512,
} from '../support/push.ts'
import * as rules from '../support/registry.ts'
import type { TestServer } from '../support/server.ts'
import { type TestBucket, createBucket, testServers } from './support.ts'

const MiB = 1024 * 1024
/** As the store has it where nothing is said. */
const PART = 16 * MiB
const CONFIG = Buffer.from('{}')

const on = (server: TestServer, location: string): string => new URL(new URL(location).pathname, server.url).href
const blobAt = (server: TestServer, name: string, digest: string): string => `${server.url}/v2/${name}/blobs/${digest}`
const manifestAt = (server: TestServer, name: string, reference: string): string =>
  `${server.url}/v2/${name}/manifests/${reference}`

for (const s3 of testServers()) {
  void describe(`Two processes on Postgres and ${s3.name}`, { timeout: 300_000 }, () => {
    let bucket: TestBucket
    let proxy: FaultProxy
    let cluster: Cluster
    let one: TestServer
    let two: TestServer
    before(async () => {
      bucket = await createBucket(s3)
      proxy = await startFaultProxy(s3.endpoint)
      cluster = await startCluster({ ...bucket.settings(proxy.endpoint), BERTH_STORAGE_UPLOAD_MEMORY: '128MiB' })
      ;({ one, two } = cluster)
    })
    after(async () => {
      await cluster?.stop()
      await proxy?.close()
      await bucket?.remove()
    })

    for (const digestOf of [sha256, sha512]) {
      const algorithm = digestOf('').slice(0, 6)
      void test(`POST on one, PATCH on the other, PATCH on the first, PUT on the other: the blob is there (${algorithm}; distribution-spec, "Pushing a blob in chunks")`, async () => {
        const bytes = randomBytes(PART + 3 * MiB)
        const [first, second] = [PART + 1000, PART + 2 * MiB]
        const name = `cluster/${algorithm}`
        const location = await openUpload(one.url, name)
        assert.equal((await patch(on(two, location), bytes.subarray(0, first), 0)).status, 202)
        assert.equal((await patch(on(one, location), bytes.subarray(first, second), first)).status, 202)
        assert.equal((await patch(on(one, location), bytes, 0)).status, 416)
        assert.equal(await offsetOf(on(two, location)), second)
        const digest = digestOf(bytes)
        assert.equal((await close(on(two, location), digest, bytes.subarray(second))).status, 201)
        for (const server of [one, two]) await assertBytes(await fetch(blobAt(server, name, digest)), bytes)
      })
    }

    void test('Chunks of 1 MiB that alternate between the processes: none reads what came before its part, and the close reads the blob once.', async () => {
      const chunks = (2 * PART) / MiB + 3
      const bytes = randomBytes(chunks * MiB)
      const location = await openUpload(one.url, 'cluster/alternating')
      proxy.seen.splice(0)
      for (let chunk = 0; chunk < chunks; chunk += 1) {
        const server = chunk % 2 === 0 ? two : one
        const at = chunk * MiB
        assert.equal((await patch(on(server, location), bytes.subarray(at, at + MiB), at)).status, 202)
      }
      const reads = (): string[] => proxy.seen.filter(line => line.startsWith('GET'))
      // A part that fills up is put together from its chunks but the last, each read once: parts cannot be read back.
      assert.equal(reads().length, 2 * (PART / MiB - 1))
      assert.equal(new Set(reads()).size, reads().length)
      proxy.seen.splice(0)
      assert.equal((await close(on(one, location), sha256(bytes))).status, 201)
      const [completed] = proxy.seen.filter(line => /^POST .*uploadId=/.test(line)).map(pathOf)
      // Three chunks were left for the last part; then neither process has hashed the blob from its beginning.
      assert.deepEqual(reads().map(pathOf).slice(3), [completed])
      await assertBytes(await fetch(blobAt(two, 'cluster/alternating', sha256(bytes))), bytes)
    })

    void test('Tags, new targets of tags and deletes in one process are seen by the other with its next request.', async () => {
      const name = 'cluster/seen'
      const layer = randomBytes(1000)
      for (const bytes of [CONFIG, layer]) await pushBlob(one.url, name, bytes)
      const [old, fresh] = ['old', 'fresh'].map(v => manifestOf(CONFIG, [layer], { annotations: { v } })) as [
        string,
        string,
      ]
      for (const [at, other] of [
        [one, two],
        [two, one],
      ] as const) {
        for (const body of [old, fresh]) {
          assert.equal((await putManifest(at.url, name, 'v1', body)).status, 201)
          assert.equal(await (await fetch(manifestAt(other, name, 'v1'))).text(), body)
        }
        // Both have the small blob in their memory now.
        for (const server of [at, other]) await assertBytes(await fetch(blobAt(server, name, sha256(layer))), layer)
        for (const digest of [sha256(old), sha256(fresh)]) {
          assert.equal((await fetch(manifestAt(at, name, digest), { method: 'DELETE' })).status, 202)
          assert.equal((await fetch(manifestAt(other, name, digest))).status, 404)
        }
        assert.equal((await fetch(manifestAt(other, name, 'v1'))).status, 404)
      }
      assert.equal((await fetch(blobAt(one, name, sha256(layer)), { method: 'DELETE' })).status, 202)
      assert.equal((await fetch(blobAt(two, name, sha256(layer)))).status, 404)
    })

    void test('Connections that the database ends are made anew, and an upload goes on (PostgreSQL, pg_terminate_backend).', async () => {
      const bytes = randomBytes(200_000)
      const location = await openUpload(one.url, 'cluster/cut')
      assert.equal((await patch(on(one, location), bytes.subarray(0, 100_000), 0)).status, 202)
      await pushBlob(two.url, 'cluster/cut', CONFIG)
      const { rowCount } = await asClient(cluster.databaseUrl, client =>
        client.query(
          'select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()',
        ),
      )
      assert.ok((rowCount ?? 0) >= 2, 'both processes had connections')
      for (const server of [one, two]) {
        await until('it is ready again', async () => (await fetch(`${server.url}/readyz`)).status === 200)
        assert.equal(await offsetOf(on(server, location)), 100_000)
      }
      assert.equal((await patch(on(two, location), bytes.subarray(100_000), 100_000)).status, 202)
      assert.equal((await close(on(one, location), sha256(bytes))).status, 201)
      await assertBytes(await fetch(blobAt(two, 'cluster/cut', sha256(bytes))), bytes)
    })

    void test('skopeo and crane push and pull by a proxy that changes the process with every request, redirects off.', async () => {
      await pushAndPull(cluster, 'off')
    })

    void test('skopeo and crane push and pull by a proxy that changes the process with every request, redirects on.', async () => {
      const redirecting = await startCluster({
        ...bucket.settings(proxy.endpoint),
        BERTH_STORAGE_S3_REDIRECT: 'true',
        BERTH_STORAGE_S3_PUBLIC_ENDPOINT: s3.endpoint,
      })
      try {
        proxy.seen.splice(0)
        await pushAndPull(redirecting, 'on')
        assert.equal(proxy.seen.filter(line => line.startsWith('GET')).length, 0, 'blobs came by the registry')
      } finally {
        await redirecting.stop()
      }
    })
  })

  void describe(`Background work of two processes on Postgres and ${s3.name}`, { timeout: 120_000 }, () => {
    void test('Expiry, sweep and purge at the same moment in both: everything is done once, nothing twice.', async t => {
      const index = await withDatabase()
      const bucket = await createBucket(s3)
      const proxy = await startFaultProxy(s3.endpoint)
      const stores = [bucket.open({ endpoint: proxy.endpoint }), bucket.open({ endpoint: proxy.endpoint })] as const
      t.after(async () => {
        await Promise.all(stores.map(store => store.close()))
        await proxy.close()
        await bucket.remove()
        await index.close()
      })
      const databases = [index.db, await index.another()] as const
      const { registry } = await rules.withRegistry(index.db, { store: stores[0] })
      const [blobs, uploads] = [24, 12]
      for (let count = 0; count < blobs; count += 1) await rules.pushBlob(registry, 'team/app')
      const name = parseName('team/app')
      const { signal } = new AbortController()
      for (let count = 0; count < uploads; count += 1) {
        const id = await registry.startUpload(name, rules.PUSHER)
        await registry.appendUpload(
          { name, id },
          { stream: Readable.from([randomBytes(10)]), start: undefined, signal },
        )
      }
      const both = async (work: (db: Database, turn: 0 | 1) => Promise<number>): Promise<number> => {
        const done = await Promise.all([work(databases[0], 0), work(databases[1], 1)])
        return done[0] + done[1]
      }
      await index.db.query(`update upload set expires_at = clock_timestamp() - interval '1 second'`)
      assert.equal(await both(db => expireUploads(db)), uploads)
      await rules.letTimePass(index.db)
      const options = { batch: 5, leaseMs: 3_600_000, trashGraceMs: 3_600_000 }
      const swept = await both(async db => (await sweep(db, options, async () => {})).blobs)
      // A batch that one holds the other passes over: what is left is due at the next turn.
      const left = (await sweep(index.db, options, async () => {})).blobs
      assert.equal(swept + left, blobs)
      await rules.letTimePass(index.db)
      proxy.seen.splice(0)
      assert.equal(await both(async (db, turn) => (await purgeTrash(db, stores[turn])).purged), blobs + uploads)
      const removed = proxy.seen.filter(line => line.startsWith('DELETE'))
      assert.equal(removed.length, blobs + uploads)
      assert.equal(new Set(removed).size, removed.length)
      assert.deepEqual(await bucket.contents(), [])
    })
  })
}

function pathOf(line: string): string {
  return new URL(line.split(' ')[1] ?? '', 'http://store').pathname
}

async function pushAndPull({ proxy }: Cluster, title: string): Promise<void> {
  const work = await scratch()
  try {
    const layout = await makeLayout(work, 'image', [{ path: '/hello', content: 'hello\n' }])
    const { digest } = await layoutDescriptor(layout)
    const [before = 0] = proxy.counts
    const reference = `${proxy.host}/clients/${title}`
    await run('skopeo', ['copy', '--dest-tls-verify=false', `oci:${layout}:latest`, `docker://${reference}:skopeo`])
    await run(CRANE, ['push', layout, `${reference}-crane:1`, '--insecure'])
    for (const [index, image] of [`${reference}:skopeo`, `${reference}-crane:1`].entries()) {
      const [bySkopeo, byCrane] = [join(work, `skopeo-${index}`), join(work, `crane-${index}`)]
      await run('skopeo', ['copy', '--src-tls-verify=false', `docker://${image}`, `oci:${bySkopeo}:latest`])
      await run(CRANE, ['pull', '--format', 'oci', image, byCrane, '--insecure'])
      for (const pulled of [bySkopeo, byCrane]) assert.equal((await layoutDescriptor(pulled)).digest, digest)
    }
    const [first = 0, second = 0] = proxy.counts
    assert.ok(first > before && Math.abs(first - second) <= 1, `${first} and ${second} requests`)
  } finally {
    await removeScratch(work)
  }
}

async function asClient<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client(url)
  await client.connect()
  try {
    return await work(client)
  } finally {
    await client.end()
  }
}
