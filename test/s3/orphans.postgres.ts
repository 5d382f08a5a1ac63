import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, describe, test } from 'node:test'
import { purgeTrash } from '../../src/gc/purge.ts'
import { reconcile } from '../../src/gc/reconcile.ts'
import { openPostgres } from '../../src/metadata/postgres.ts'
import { until } from '../support/clients.ts'
import { type Cluster, startCluster } from '../support/cluster.ts'
import { type FaultPlan, startFaultProxy } from '../support/fault-proxy.ts'
import { assertBytes, close, offsetOf, openUpload, patch, sha256 } from '../support/push.ts'
import { letTimePass } from '../support/registry.ts'
import type { TestServer } from '../support/server.ts'
import { type TestBucket, createBucket, testServers } from './support.ts'

/** As the store has it where nothing is said. */
const PART = 16 * 1024 * 1024
/** Everything is older than an hour from now. */
const ANY_AGE = -3_600_000

const on = (server: TestServer, location: string): string => new URL(new URL(location).pathname, server.url).href

for (const s3 of testServers()) {
  void describe(`A process that is killed, on Postgres and ${s3.name}`, { timeout: 300_000 }, () => {
    let bucket: TestBucket
    let cluster: Cluster
    before(async () => {
      bucket = await createBucket(s3)
      // It goes straight to the store, and on with what others leave that go by proxies which stop them where they die.
      cluster = await startCluster(bucket.settings())
    })
    after(async () => {
      await cluster?.stop()
      await bucket?.remove()
    })

    /** Where a process dies: which request the store has carried out and nobody heard of. */
    const moments: Readonly<Record<string, (request: { method: string; url: URL }) => boolean>> = {
      'an object is stored and not recorded': ({ method, url }) =>
        method === 'PUT' && !url.searchParams.has('uploadId'),
      'a multipart upload is begun and not recorded': ({ method, url }) =>
        method === 'POST' && url.searchParams.has('uploads'),
      'a part is stored and not recorded': ({ method, url }) => method === 'PUT' && url.searchParams.has('partNumber'),
      'the upload is completed and not recorded': ({ method, url }) =>
        method === 'POST' && url.searchParams.has('uploadId'),
    }

    void test('The other goes on at the reported offset, whatever the store had done last, and after the reconcile nothing is left over.', async () => {
      const { two } = cluster
      const victims = await Promise.all(
        Object.entries(moments).map(async ([moment, isIt], index) => {
          const fault = await startFaultProxy(s3.endpoint)
          const plan: FaultPlan = request => (isIt(request) ? { kind: 'hold' } : undefined)
          const server = await cluster.another(bucket.settings(fault.endpoint))
          const name = `killed/${index}`
          const bytes = randomBytes(moment.includes('object') ? 100_000 : 2 * PART + 100_000)
          const location = await openUpload(server.url, name)
          fault.plan = plan
          const pushed = push(on(server, location), bytes)
          await until(moment, async () => fault.held > 0)
          return { moment, fault, server, name, bytes, location, pushed }
        }),
      )
      for (const { server } of victims) server.kill()
      await Promise.all(
        victims.map(async ({ moment, fault, name, bytes, location, pushed }) => {
          await assert.rejects(pushed, moment)
          await fault.close()
          const offset = await offsetOf(on(two, location))
          assert.ok(offset < bytes.byteLength || moment.includes('completed'), moment)
          const closed = await close(on(two, location), sha256(bytes), bytes.subarray(offset))
          assert.equal(closed.status, 201, `${moment}: ${await closed.text()}`)
          await assertBytes(await fetch(`${two.url}/v2/${name}/blobs/${sha256(bytes)}`), bytes)
        }),
      )
      const db = await openPostgres({ url: cluster.databaseUrl })
      const store = bucket.open()
      try {
        await letTimePass(db)
        await purgeTrash(db, store)
        const removed = await reconcile(db, store, ANY_AGE)
        assert.ok(removed >= 2, `only ${removed} orphans were there`)
        const named = await db.query<{ storage_key: string }>('select storage_key from blob')
        assert.equal(named.length, victims.length)
        const objects = (await bucket.contents()).filter(object => !object.endsWith('/marker'))
        assert.deepEqual(
          objects.map(object => object.slice(-32)).toSorted(),
          named.map(row => row.storage_key).toSorted(),
        )
      } finally {
        await store.close()
        await db.close()
      }
    })

    /** As Docker pushes: one PATCH without an end in sight, and an empty PUT. */
    async function push(location: string, bytes: Buffer<ArrayBuffer>): Promise<void> {
      assert.equal((await patch(location, bytes)).status, 202)
      assert.equal((await close(location, sha256(bytes))).status, 201)
    }
  })
}
