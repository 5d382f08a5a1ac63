import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { afterEach, beforeEach, suite, test } from 'node:test'
import { purgeTrash } from '../../src/gc/purge.ts'
import { type Database, DatabaseUnavailable } from '../../src/metadata/database.ts'
import { stopCopy } from '../../src/metadata/storage-copy.ts'
import type { Digest } from '../../src/oci/digest.ts'
import { parseName } from '../../src/oci/name.ts'
import { type BlobStore, type StorageKey, StoreUnavailable } from '../../src/storage/blob-store.ts'
import { Stores } from '../../src/storage/stores.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { type Step, faultyStore } from '../support/faulty-store.ts'
import { askForMove, moveOf, strays, workOnMove } from '../support/moving.ts'
import { received } from '../support/received.ts'
import {
  PUSHER,
  type TestRegistry,
  letTimePass,
  pushBlob,
  pushImage,
  sha256,
  withRegistry,
} from '../support/registry.ts'
import { type TwoStores, openTwoStores } from '../support/two-stores.ts'

const name = parseName('team/app')
const { signal } = new AbortController()

void suite('a move of content from one store to another', () => {
  let index: TestDatabase
  let db: Database
  let two: TwoStores
  let stores: Stores
  let rules: TestRegistry

  beforeEach(async () => {
    index = await withDatabase()
    ;({ db } = index)
    two = await openTwoStores()
    stores = new Stores({ store: two.old }, { store: two.next })
    rules = await withRegistry(db, { stores })
  })
  afterEach(async () => {
    await rules.close()
    await two.close()
    await index.close()
  })

  async function pushed(count: number, bytes = 1000): Promise<Digest[]> {
    const digests: Digest[] = []
    for (let turn = 0; turn < count; turn++) {
      digests.push(await pushBlob(rules.registry, 'team/app', randomBytes(bytes + turn)))
    }
    return digests
  }

  async function assertReadable(digests: readonly Digest[]): Promise<void> {
    for (const digest of digests) {
      const blob = await rules.registry.statBlob(name, digest, PUSHER)
      const bytes = await received(to => rules.registry.sendBlob(blob, undefined, to, signal))
      assert.equal(sha256(bytes), digest)
    }
  }

  async function storesInUse(): Promise<Record<string, number>> {
    const rows = await db.query<{ store: string; count: number }>('select store, count(*) from blob group by store')
    return Object.fromEntries(rows.map(row => [row.store, row.count]))
  }

  const keyOf = async (digest: Digest): Promise<StorageKey> => {
    const [row] = await db.query<{ storage_key: StorageKey }>('select storage_key from blob where digest = $1', [
      digest,
    ])
    assert.ok(row !== undefined)
    return row.storage_key
  }

  test('every blob ends in the target with the same bytes, and the old ones go when their grace is over', async () => {
    const digests = [...(await pushed(7)), await pushBlob(rules.registry, 'team/app', Buffer.alloc(0))]
    await pushImage(rules.registry, 'team/app', 'v1', { layers: digests })
    await askForMove(db, 'next')
    assert.equal(await workOnMove({ db, stores }), 'done')

    assert.deepEqual(await storesInUse(), { next: 9 })
    await assertReadable(digests)
    const { copied_blobs, copied_bytes, found_blobs, found_bytes, failed_blobs, outcome } = await moveOf(db)
    assert.deepEqual([copied_blobs, found_blobs, failed_blobs, outcome], [9, 9, 0, 'done'])
    assert.equal(copied_bytes, 7 * 1000 + 21 + 64)
    assert.equal(found_bytes, copied_bytes)
    assert.equal((await purgeTrash(db, two.old)).purged, 0)
    await letTimePass(db)
    assert.equal((await purgeTrash(db, two.old)).purged, 9)
    assert.deepEqual(await strays(db, two.old), { found: 0, unnamed: 0 })
    assert.deepEqual(await strays(db, two.next), { found: 9, unnamed: 0 })
    await assertReadable(digests)
  })

  test('who was told where the bytes are before they moved reads them from there', async () => {
    const [digest] = (await pushed(1)) as [Digest]
    const blob = await rules.registry.statBlob(name, digest, PUSHER)
    await askForMove(db, 'next')
    await workOnMove({ db, stores })
    assert.equal(blob.store, 'old')
    const bytes = await received(to => rules.registry.sendBlob(blob, undefined, to, signal))
    assert.equal(sha256(bytes), digest)
  })

  test('it goes back the same way', async () => {
    const digests = await pushed(3)
    for (const target of ['next', 'old', 'next']) {
      await askForMove(db, target)
      assert.equal(await workOnMove({ db, stores }), 'done')
      assert.deepEqual(await storesInUse(), { [target]: 3 })
      await assertReadable(digests)
    }
  })

  test('an upload under way stays in its store and ends there', async () => {
    const bytes = randomBytes(10_000)
    const target = { name, id: await rules.registry.startUpload(name, PUSHER) }
    const part = (from: number, to: number) => ({
      stream: Readable.from([bytes.subarray(from, to)]),
      start: from,
      signal,
    })
    await rules.registry.appendUpload(target, part(0, 5_000))
    await askForMove(db, 'next')
    assert.equal(await workOnMove({ db, stores }), 'done')
    await rules.registry.finishUpload(target, sha256(bytes), part(5_000, 10_000))
    await assertReadable([sha256(bytes)])
    assert.deepEqual(await storesInUse(), { old: 1 })
  })

  test('bytes that are not what their digest says, or absent, stay behind and are named; all others move', async () => {
    const digests = await pushed(5)
    const [altered, absent] = digests as [Digest, Digest]
    const other = await two.old.finish(
      await two.old.append(two.old.begin({}), Readable.from([randomBytes(1000)], { objectMode: false }), {
        observe: () => {},
        onDurable: async () => {},
        signal,
      }),
    )
    await db.query('update blob set storage_key = $2 where digest = $1', [altered, other])
    await two.old.delete([await keyOf(absent)])
    const failures = new Map<string, string>()
    await askForMove(db, 'next')
    const onFailure = (blob: { digest: string }, error: unknown): void => void failures.set(blob.digest, String(error))
    assert.equal(await workOnMove({ db, stores, onFailure }), 'incomplete')

    assert.deepEqual(await storesInUse(), { old: 2, next: 3 })
    assert.match(failures.get(altered) ?? '', /its bytes in old have the digest sha256:/)
    assert.match(failures.get(absent) ?? '', /its bytes are absent in old/)
    const { failed_blobs, last_failure, outcome } = await moveOf(db)
    assert.deepEqual([failed_blobs, outcome], [2, 'incomplete'])
    assert.match(last_failure ?? '', /^sha256:[0-9a-f]{64}: its bytes/)
    await assertReadable(digests.slice(2))
    await letTimePass(db)
    await purgeTrash(db, two.next)
    assert.deepEqual(await strays(db, two.next), { found: 3, unnamed: 0 })
  })

  for (const step of ['append', 'sync', 'finish', 'finished'] as const satisfies readonly Step[]) {
    test(`when the target fails at ${step} nothing is lost or left over, and a later try ends it`, async () => {
      const digests = await pushed(4)
      const next = faultyStore(two.next)
      const faulty = new Stores({ store: two.old }, { store: next })
      await askForMove(db, 'next')
      next.failing = step
      await assert.rejects(workOnMove({ db, stores: faulty, leaseMs: 0 }), StoreUnavailable)
      assert.match((await moveOf(db)).last_failure ?? '', /told to fail/)
      await assertReadable(digests)
      assert.equal((await strays(db, two.next)).unnamed, 0)
      next.failing = undefined
      assert.equal(await workOnMove({ db, stores: faulty }), 'done')
      await assertReadable(digests)
      await letTimePass(db)
      await purgeTrash(db, two.next)
      assert.deepEqual(await strays(db, two.next), { found: 4, unnamed: 0 })
    })
  }

  test('when the source does not answer nothing is counted against its blobs', async () => {
    const digests = await pushed(3)
    async function* failing(): AsyncGenerator<Uint8Array> {
      yield Buffer.alloc(10)
      throw new StoreUnavailable('gone')
    }
    const old: BlobStore = {
      ...faultyStore(two.old),
      read: () => Readable.from(failing()),
      check: async () => {
        throw new StoreUnavailable('gone')
      },
    }
    await askForMove(db, 'next')
    const broken = new Stores({ store: old }, { store: two.next })
    await assert.rejects(workOnMove({ db, stores: broken, leaseMs: 0 }), StoreUnavailable)
    assert.equal((await moveOf(db)).failed_blobs, 0)
    assert.equal(await workOnMove({ db, stores }), 'done')
    await assertReadable(digests)
  })

  test('when the outcome of a commit is unknown the row that survived decides', async () => {
    const digests = await pushed(6)
    let commits = 0
    const unsure: Database = {
      driver: db.driver,
      query: (...args) => db.query(...args),
      changes: () => db.changes(),
      load: () => db.load(),
      close: async () => {},
      async transaction(work) {
        const result = await db.transaction(work)
        commits += 1
        if (commits > 6) throw new DatabaseUnavailable('the answer to COMMIT was lost')
        return result
      },
    }
    await askForMove(db, 'next')
    await assert.rejects(workOnMove({ db: unsure, stores, leaseMs: 0 }), DatabaseUnavailable)
    assert.ok(commits > 6)
    await assertReadable(digests)
    await letTimePass(db)
    await purgeTrash(db, two.next)
    await purgeTrash(db, two.old)
    await assertReadable(digests)
    assert.equal(await workOnMove({ db, stores }), 'done')
    await assertReadable(digests)
    assert.deepEqual(await strays(db, two.next), { found: 6, unnamed: 0 })
  })

  test('one that was told to end goes on later and copies nothing a second time', async () => {
    const digests = await pushed(8)
    const stop = new AbortController()
    let begun = 0
    const next: BlobStore = {
      ...faultyStore(two.next),
      begin(hint) {
        begun += 1
        if (begun === 4) stop.abort(new Error('the process ends'))
        return two.next.begin(hint)
      },
    }
    await askForMove(db, 'next', 1)
    const interrupted = new Stores({ store: two.old }, { store: next })
    await assert.rejects(workOnMove({ db, stores: interrupted }, stop.signal), /the process ends/)
    const { copied_blobs: copied, ended_at: endedAt } = await moveOf(db)
    assert.equal(copied, 3)
    assert.equal(endedAt, null)
    // The lease was given back, so nobody has to wait for it.
    assert.equal(await workOnMove({ db, stores }), 'done')
    assert.deepEqual(await storesInUse(), { next: 8 })
    assert.equal((await moveOf(db)).copied_blobs, 8)
    assert.deepEqual(await db.query(`select count(*) from trash where store = 'old'`), [{ count: 8 }])
    await assertReadable(digests)
  })

  test('one process works on it at a time, and the next takes over when that one has died', async () => {
    const digests = await pushed(2)
    await askForMove(db, 'next')
    const entered = Promise.withResolvers<void>()
    const hold = Promise.withResolvers<void>()
    const next: BlobStore = {
      ...faultyStore(two.next),
      async finish(state) {
        entered.resolve()
        await hold.promise
        return await two.next.finish(state)
      },
    }
    const slow = workOnMove({ db, stores: new Stores({ store: two.old }, { store: next }), beatMs: 3_600_000 })
    await entered.promise
    assert.equal(await workOnMove({ db, stores }), undefined)
    await db.query('update storage_copy set lease_until = clock_timestamp()')
    // As if the first had been stopped for longer than its lease: both have the same blobs in hand.
    assert.equal(await workOnMove({ db, stores }), 'done')
    hold.resolve()
    assert.equal(await slow, 'done')
    assert.deepEqual(await storesInUse(), { next: 2 })
    assert.equal((await moveOf(db)).copied_blobs, 2)
    await assertReadable(digests)
    await letTimePass(db)
    await purgeTrash(db, two.next)
    assert.deepEqual(await strays(db, two.next), { found: 2, unnamed: 0 })
    await assertReadable(digests)
  })

  test('one that an administrator stops ends, and what was moved stays moved', async () => {
    const digests = await pushed(4)
    await askForMove(db, 'next', 1)
    const stopped = Promise.withResolvers<void>()
    let finished = 0
    const next: BlobStore = {
      ...faultyStore(two.next),
      async finish(state) {
        finished += 1
        if (finished === 3) {
          assert.equal(await db.transaction(stopCopy), true)
          stopped.resolve()
        }
        return await two.next.finish(state)
      },
      // Nothing ends by itself any more: only the beat can.
      async append(state, body, options) {
        if (finished >= 3) {
          await new Promise((_, reject) => {
            options.signal.addEventListener('abort', () => reject(options.signal.reason as Error), { once: true })
            options.signal.throwIfAborted()
          })
        }
        return await two.next.append(state, body, options)
      },
    }
    const move = workOnMove({ db, stores: new Stores({ store: two.old }, { store: next }), beatMs: 20 })
    await stopped.promise
    assert.equal(await move, undefined)
    assert.equal((await moveOf(db)).outcome, 'stopped')
    assert.deepEqual(await storesInUse(), { old: 1, next: 3 })
    assert.equal(await workOnMove({ db, stores }), undefined)
    await assertReadable(digests)
  })

  test('a blob that is collected while it is copied is not brought back', async () => {
    const [digest] = (await pushed(1)) as [Digest]
    await askForMove(db, 'next')
    const next: BlobStore = {
      ...faultyStore(two.next),
      async finish(state) {
        await db.query('delete from repository_blob')
        await db.query(
          `with gone as (delete from blob returning store, storage_key)
           insert into trash (store, storage_key, purge_after) select store, storage_key, now() from gone`,
        )
        return await two.next.finish(state)
      },
    }
    const outcome = await workOnMove({ db, stores: new Stores({ store: two.old }, { store: next }) })
    assert.equal(outcome, 'done')
    assert.deepEqual(await db.query('select id from blob where digest = $1', [digest]), [])
    await letTimePass(db)
    await purgeTrash(db, two.next)
    await purgeTrash(db, two.old)
    assert.deepEqual(await strays(db, two.next), { found: 0, unnamed: 0 })
    assert.deepEqual(await strays(db, two.old), { found: 0, unnamed: 0 })
  })

  test('a copy that was purged before it was whole does not become the blob', async () => {
    const digests = await pushed(1)
    await askForMove(db, 'next')
    const next: BlobStore = {
      ...faultyStore(two.next),
      async finish(state) {
        const key = await two.next.finish(state)
        await letTimePass(db)
        await purgeTrash(db, two.next)
        return key
      },
    }
    const late = new Stores({ store: two.old }, { store: next })
    await assert.rejects(workOnMove({ db, stores: late, leaseMs: 0 }), /so long that the copy was purged/)
    assert.deepEqual(await storesInUse(), { old: 1 })
    await assertReadable(digests)
  })

  test('nothing is moved into a store that belongs to another registry', async () => {
    await pushed(2)
    await askForMove(db, 'next')
    assert.equal(await workOnMove({ db, stores, mayUse: async () => false }), 'incomplete')
    assert.match((await moveOf(db)).last_failure ?? '', /belongs to another registry/)
    assert.deepEqual(await strays(db, two.next), { found: 0, unnamed: 0 })
  })
})
