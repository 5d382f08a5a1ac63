import assert from 'node:assert/strict'
import { after, before, beforeEach, suite, test } from 'node:test'
import { purgeTrash } from '../../src/gc/purge.ts'
import { type BlobStore, type StorageKey, StoreUnavailable } from '../../src/storage/blob-store.ts'
import { newKey } from '../../src/storage/keys.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { type TestRegistry, withRegistry } from '../support/registry.ts'

void suite('the purge', () => {
  let index: TestDatabase
  let opened: TestRegistry
  before(async () => {
    index = await withDatabase()
    opened = await withRegistry(index.db)
  })
  after(async () => {
    await opened.close()
    await index.close()
  })
  beforeEach(() => index.db.transaction(tx => tx.script('delete from trash')))

  /** Puts keys into the trash whose grace is over; answers them in the order in which they are due. */
  async function fill(count: number): Promise<readonly StorageKey[]> {
    const keys = Array.from({ length: count }, newKey)
    await index.db.transaction(tx =>
      tx.query(
        `insert into trash (store, storage_key, size, purge_after)
         select $1, k, 10, clock_timestamp() - interval '1 hour' + n * interval '1 second'
           from unnest($2::text[]) with ordinality x (k, n)`,
        [opened.store.name, keys],
      ),
    )
    return keys
  }

  const left = async (): Promise<readonly string[]> =>
    (await index.db.query<{ storage_key: string }>('select storage_key from trash order by purge_after')).map(
      row => row.storage_key,
    )

  /** A store that cannot delete these keys, alone or with others; as S3 answers `AccessDenied` for an object under a lock. */
  const stubborn = (keys: readonly string[]): BlobStore => ({
    ...opened.store,
    delete(asked) {
      if (asked.some(key => keys.includes(key))) return Promise.reject(new StoreUnavailable('the object is locked'))
      return opened.store.delete(asked)
    },
  })

  test('a key that cannot be deleted holds up no other, of its batch or of later ones', async () => {
    const keys = await fill(25)
    const stuck = keys.filter((_, place) => place % 10 === 3)
    const failing = purgeTrash(index.db, stubborn(stuck), { batch: 10 })
    await assert.rejects(failing, /^AggregateError: 3 keys could not be deleted: .*the object is locked/)
    assert.deepEqual(await left(), stuck)
  })

  test('what could not be deleted is tried again ten minutes later', async () => {
    const [stuck = newKey()] = await fill(5)
    await assert.rejects(purgeTrash(index.db, stubborn([stuck])))
    assert.equal((await purgeTrash(index.db, opened.store)).purged, 0)
    await index.db.transaction(tx => tx.query(`update trash set purging_at = purging_at - interval '11 minutes'`))
    assert.deepEqual(await purgeTrash(index.db, opened.store), { purged: 1, freedBytes: 10, failed: 0 })
  })

  test('a store that deletes nothing at all is left alone after one batch', async () => {
    const keys = await fill(25)
    await assert.rejects(purgeTrash(index.db, stubborn(keys), { batch: 10 }), /10 keys/)
    const begun = await index.db.query('select from trash where purging_at is not null')
    assert.equal(begun.length, 10)
  })

  test('it says after each batch what was freed', async () => {
    await fill(25)
    const batches: number[] = []
    await purgeTrash(index.db, opened.store, {
      batch: 10,
      onBatch(batch) {
        batches.push(batch.freedBytes)
        return Promise.resolve()
      },
    })
    assert.deepEqual(batches, [100, 100, 50])
  })
})
