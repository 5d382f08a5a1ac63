import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { after, before, describe, test } from 'node:test'
import { purgeTrash } from '../../src/gc/purge.ts'
import { reconcile } from '../../src/gc/reconcile.ts'
import { parseName } from '../../src/oci/name.ts'
import { type StorageKey, StoreUnavailable } from '../../src/storage/blob-store.ts'
import type { S3Store } from '../../src/storage/s3.ts'
import { bodyOf } from '../storage/contract.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { PUSHER, type TestRegistry, letTimePass, sha256, withRegistry } from '../support/registry.ts'
import { type TestBucket, createBucket, testServers } from './support.ts'

const MiB = 1024 * 1024
const PART = 5 * MiB
/** Everything is older than an hour from now. */
const ANY_AGE = -3_600_000
const name = parseName('team/app')
const { signal } = new AbortController()

for (const server of testServers()) {
  void describe(`The reconcile of a bucket on ${server.name}`, { timeout: 120_000 }, () => {
    let index: TestDatabase
    let bucket: TestBucket
    let store: S3Store
    let registry: TestRegistry
    before(async () => {
      index = await withDatabase()
      bucket = await createBucket(server)
      store = bucket.open({ partBytes: PART, uploadMemoryBytes: 4 * PART })
      registry = await withRegistry(index.db, { store })
    })
    after(async () => {
      await registry.close()
      await store.close()
      await bucket.remove()
      await index.close()
    })

    async function upload(bytes: Buffer): Promise<{ name: typeof name; id: string }> {
      const target = { name, id: await registry.registry.startUpload(name, PUSHER) }
      await registry.registry.appendUpload(target, { stream: Readable.from([bytes]), start: undefined, signal })
      return target
    }

    void test('A crash between the beginning of a multipart upload and its recording leaves nothing in the end.', async () => {
      const state = store.begin()
      const crash = new Error('killed')
      await assert.rejects(
        store.append(state, bodyOf(randomBytes(PART)), {
          observe: () => {},
          onDurable: () => Promise.reject(crash),
          signal,
          attempt: 1,
        }),
        error => error === crash,
      )
      assert.equal((await bucket.contents()).length, 1)

      assert.equal(await reconcile(index.db, store, ANY_AGE), 1)
      assert.deepEqual(await bucket.contents(), [])
    })

    void test('Every object of an upload under way stays; of an upload that ended, none.', async () => {
      const content = randomBytes(PART + 1000)
      const large = await upload(content)
      const small = await upload(content.subarray(0, 1000))
      const stray = store.begin()
      await store.bucket.put(stray.key, randomBytes(10))
      const cancelled = await upload(content)
      await registry.registry.cancelUpload(cancelled)

      assert.equal(await reconcile(index.db, store, ANY_AGE), 1)
      await registry.registry.finishUpload(large, sha256(content), undefined)
      const rest = { stream: Readable.from([content.subarray(1000, 2000)]), start: undefined, signal }
      await registry.registry.finishUpload(small, sha256(content.subarray(0, 2000)), rest)
      await letTimePass(index.db)
      await purgeTrash(index.db, store)
      const named = await index.db.query<{ storage_key: StorageKey }>('select storage_key from blob')
      assert.deepEqual(
        new Set(await bucket.contents()),
        new Set(named.map(row => store.bucket.nameOf(row.storage_key))),
      )
    })

    void test('When the store fails the reconcile fails, and does its work the next time.', async t => {
      await store.bucket.put(store.begin().key, randomBytes(10))
      const broken = bucket.open({ endpoint: 'http://127.0.0.1:1', attempts: 1 })
      t.after(() => broken.close())
      await assert.rejects(reconcile(index.db, broken, ANY_AGE), StoreUnavailable)
      assert.equal(await reconcile(index.db, store, ANY_AGE), 1)
    })
  })
}
