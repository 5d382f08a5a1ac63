import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { afterEach, beforeEach, suite, test } from 'node:test'
import { type Ownership, StoreOwner, adoptStores } from '../../src/gc/store-owner.ts'
import type { Database } from '../../src/metadata/database.ts'
import { type BlobStore, StoreUnavailable } from '../../src/storage/blob-store.ts'
import { stored } from '../storage/contract.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { faultyStore } from '../support/faulty-store.ts'
import { runSeed, seeded } from '../support/random.ts'
import { type TwoStores, openTwoStores } from '../support/two-stores.ts'

const HERE = 'here'
/** Nobody waits for anything. */
const AT_ONCE = { settleMs: 0, stampMs: 0 }
const PATIENT = { settleMs: 3_600_000, stampMs: 3_600_000 }

// Databases of the tests are copies of one, so all have the same id.
void suite('the owner of a store', () => {
  let index: TestDatabase
  let copy: TestDatabase
  let two: TwoStores
  let store: BlobStore
  beforeEach(async () => {
    ;[index, copy] = await Promise.all([withDatabase(), withDatabase()])
    two = await openTwoStores()
    store = two.old
  })
  afterEach(async () => {
    await two.close()
    await Promise.all([index.close(), copy.close()])
  })

  const start = async (db: Database, incarnation = HERE, times = AT_ONCE): Promise<[StoreOwner, Ownership]> => {
    const owner = new StoreOwner(db, store, incarnation, times)
    return [owner, await owner.claim()]
  }

  test('an empty store becomes the first one’s, and stays that over restarts', async () => {
    for (let turn = 0; turn < 3; turn++) {
      const [owner, found] = await start(index.db)
      assert.equal(found, 'ours')
      assert.equal(await owner.check(), 'ours')
      assert.equal(owner.last, 'ours')
    }
  })

  test('a database that was restored elsewhere from a dump has the same id, and the store is not its', async () => {
    const [owner] = await start(index.db)
    const [restored, found] = await start(copy.db, 'elsewhere')
    assert.equal(found, 'foreign')
    assert.deepEqual([await restored.check(), await owner.check()], ['foreign', 'ours'])
  })

  test('after a start nothing is ours until a copy would have objected', async () => {
    await start(index.db)
    assert.equal((await start(index.db, HERE, PATIENT))[1], 'settling')
    assert.equal((await start(index.db))[1], 'ours')
  })

  test('when a copy that has everything starts beside the owner neither may delete, until one adopts the store', async () => {
    const [owner] = await start(index.db)
    // The copy of the files: what the index knows of the marker is in it.
    const claims = await index.db.query<{ store: string; stamp: string }>('select store, stamp from store_claim')
    await copy.db.query('insert into store_claim (store, stamp, settled_at) values ($1, $2, now())', [
      claims[0]?.store,
      claims[0]?.stamp,
    ])
    const [twin, found] = await start(copy.db, HERE, PATIENT)
    assert.equal(found, 'settling')
    assert.equal(await owner.check(), 'contested')
    assert.equal(await twin.check(), 'contested')
    assert.deepEqual([await owner.check(), await twin.check()], ['contested', 'contested'])
    assert.equal((await start(copy.db))[1], 'contested')

    await adoptStores(index.db, [store], HERE)
    assert.deepEqual([await owner.check(), await twin.check()], ['ours', 'foreign'])
    assert.deepEqual([(await start(index.db))[1], (await start(copy.db))[1]], ['ours', 'foreign'])
  })

  test('a copy from before the owner’s last start does not get the store, and does not disturb the owner', async () => {
    await start(index.db)
    const claims = await index.db.query<{ stamp: string }>('select stamp from store_claim')
    await copy.db.query(`insert into store_claim (store, stamp, settled_at) values ('old', $1, now())`, [
      claims[0]?.stamp,
    ])
    const [owner] = await start(index.db)
    const [stale, found] = await start(copy.db)
    assert.equal(found, 'contested')
    assert.equal(await stale.check(), 'contested')
    assert.equal(await owner.check(), 'ours')
  })

  test('what is not empty and has no marker is nobody’s', async () => {
    await stored(store, randomBytes(10))
    const [owner, found] = await start(index.db)
    assert.equal(found, 'unclaimed')
    await adoptStores(index.db, [store], HERE)
    assert.equal(await owner.check(), 'ours')
  })

  test('an empty store in which blobs should be is nobody’s: it may be a disk that is not mounted', async () => {
    await index.db.query(
      `insert into blob (digest, size, store, storage_key) values ('sha256:0', 1, 'old', 'a'), ('sha256:1', 1, 'next', 'b')`,
    )
    const [owner, found] = await start(index.db)
    assert.equal(found, 'unclaimed')
    await index.db.query('delete from blob')
    assert.equal(await owner.check(), 'ours')
  })

  for (const text of ['', 'null', '{}', '{"owner":"x","incarnation":"here"}', 'not JSON']) {
    test(`a marker that says ${text || 'nothing'} is another’s`, async () => {
      await start(index.db)
      await store.writeMarker(text)
      assert.equal((await start(index.db))[1], 'foreign')
    })
  }

  test('processes of one registry that start and check at once never take each other for a copy', async t => {
    const seed = runSeed()
    t.diagnostic(`seed ${seed}: repeat with BERTH_TEST_SEED=${seed}`)
    const dbs = [index.db, await index.another(), await index.another()]
    const seen = new Set<Ownership>()
    const run = async (id: number): Promise<void> => {
      const random = seeded(seed + id)
      for (let turn = 0; turn < 12; turn++) {
        const [owner, first] = await start(random.pick(dbs), HERE, { settleMs: 0, stampMs: 3_600_000 })
        seen.add(first)
        for (let checks = random.between(0, 3); checks > 0; checks--) seen.add(await owner.check())
      }
    }
    await Promise.all([run(0), run(1), run(2), run(3)])
    assert.ok(!seen.has('contested') && !seen.has('foreign'), [...seen].join())
    const [last] = await start(index.db, HERE, { settleMs: 0, stampMs: 3_600_000 })
    assert.equal(await last.check(), 'ours')
  })

  for (const isWritten of [false, true]) {
    test(`a process that dies ${isWritten ? 'after' : 'before'} it wrote the marker is made up for`, async () => {
      await start(index.db)
      const broken: BlobStore = {
        ...faultyStore(store),
        async writeMarker(text) {
          if (isWritten) await store.writeMarker(text)
          throw new StoreUnavailable('killed')
        },
      }
      await assert.rejects(new StoreOwner(index.db, broken, HERE, AT_ONCE).claim(), StoreUnavailable)
      const next = new StoreOwner(index.db, store, HERE, AT_ONCE)
      assert.equal(await next.check(), 'settling')
      assert.equal(await next.check(), 'ours')
    })
  }
})
