import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { after, afterEach, before, beforeEach, describe, it } from 'node:test'
import { reconcile } from '../../src/gc/reconcile.ts'
import { parseName } from '../../src/oci/name.ts'
import type { StorageKey } from '../../src/storage/blob-store.ts'
import { appended, stored } from '../storage/contract.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { PUSHER, type TestRegistry, pushBlob, sha256, withRegistry } from '../support/registry.ts'

const HOUR_MS = 3_600_000
/** Everything is older than an hour from now. */
const ANY_AGE = -HOUR_MS
const name = parseName('team/app')
const { signal } = new AbortController()

void describe('the reconcile', () => {
  let index: TestDatabase
  let test: TestRegistry

  before(async () => {
    index = await withDatabase()
  })
  after(() => index.close())
  beforeEach(async () => {
    test = await withRegistry(index.db)
  })
  afterEach(() => test.close())

  async function keys(): Promise<Set<StorageKey>> {
    const found = new Set<StorageKey>()
    for await (const item of test.store.list()) found.add(item.key)
    return found
  }

  it('removes finished and unfinished bytes that no row names', async () => {
    await stored(test.store, randomBytes(9))
    await appended(test.store, test.store.begin({}), randomBytes(9))

    assert.equal(await reconcile(index.db, test.store, ANY_AGE), 2)
    assert.deepEqual(await keys(), new Set())
  })

  it('leaves what is young, because its row may be about to come', async () => {
    await stored(test.store, randomBytes(9))

    assert.equal(await reconcile(index.db, test.store, HOUR_MS), 0)
    assert.equal((await keys()).size, 1)
  })

  it('leaves blobs, uploads under way and what waits in the trash', async () => {
    const digest = await pushBlob(test.registry, 'team/app')
    const open = { name, id: await test.registry.startUpload(name, PUSHER) }
    const content = randomBytes(100)
    await test.registry.appendUpload(open, { stream: Readable.from([content]), start: undefined, signal })
    const cancelled = { name, id: await test.registry.startUpload(name, PUSHER) }
    await test.registry.appendUpload(cancelled, { stream: Readable.from([content]), start: undefined, signal })
    await test.registry.cancelUpload(cancelled)
    const before = await keys()

    assert.equal(await reconcile(index.db, test.store, ANY_AGE), 0)
    assert.deepEqual(await keys(), before)
    await test.registry.finishUpload(open, sha256(content), undefined)
    assert.equal((await test.registry.statBlob(name, digest, PUSHER)).size, 64)
  })
})
