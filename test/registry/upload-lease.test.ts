import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { after, before, suite, test } from 'node:test'
import { parseName } from '../../src/oci/name.ts'
import { RegistryError } from '../../src/oci/errors.ts'
import { type Database, DatabaseUnavailable } from '../../src/metadata/database.ts'
import { holdRepository } from '../../src/metadata/repositories.ts'
import { findUpload, insertUpload, saveUpload } from '../../src/metadata/uploads.ts'
import { type LeaseTimes, type UploadLease, UploadLeases } from '../../src/registry/upload-lease.ts'
import { until } from '../support/clients.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'

const NAME = parseName('lease/a')
/** Short enough to see a lease end, long enough for a loaded machine to renew one. */
const TIMES: LeaseTimes = { leaseMs: 3_000, renewMs: 300, marginMs: 1_000, waitMs: 60_000, pollMs: 20 }

const withUploadLease = <T>(
  db: Database,
  id: string,
  work: (lease: UploadLease) => Promise<T>,
  times: LeaseTimes,
): Promise<T> => new UploadLeases(db, times).hold(id, work)

void suite('the lease of an upload session', () => {
  let database: TestDatabase
  before(async () => {
    database = await withDatabase()
  })
  after(() => database.close())

  async function session(): Promise<string> {
    const id = randomUUID()
    await database.db.transaction(async tx => {
      const { id: repositoryId } = await holdRepository(tx, NAME)
      await insertUpload(tx, {
        id,
        repositoryId,
        store: 'none',
        state: { key: id, offset: 0 },
        expiryMs: 3_600_000,
        principal: undefined,
      })
    })
    return id
  }

  const save = (id: string, epoch: number, offset: number): Promise<boolean> =>
    database.db.transaction(tx =>
      saveUpload(tx, { id, epoch, offset, state: { key: id, offset }, prefix: {}, expiryMs: 3_600_000 }),
    )

  const lostOf = (signal: AbortSignal): Promise<unknown> =>
    new Promise(resolve => signal.addEventListener('abort', () => resolve(signal.reason)))

  /** An index that cannot be reached while `isGone`. */
  const cuttable = (): { db: Database; isGone: boolean } => {
    const cut = { isGone: false }
    const { db } = database
    const guarded = <T>(work: () => Promise<T>): Promise<T> =>
      cut.isGone ? Promise.reject(new DatabaseUnavailable('told to be gone')) : work()
    return Object.assign(cut, {
      db: {
        driver: db.driver,
        query: (text, values) => guarded(() => db.query(text, values)),
        transaction: work => guarded(() => db.transaction(work)),
        changes: () => db.changes(),
        load: () => db.load(),
        close: () => db.close(),
      } satisfies Database as Database,
    })
  }

  void test('is held by one writer at a time, and the next goes on where that one was', async () => {
    const id = await session()
    let writers = 0
    const offsets = await Promise.all(
      Array.from({ length: 8 }, () =>
        withUploadLease(
          database.db,
          id,
          async ({ row }) => {
            assert.equal((writers += 1), 1)
            assert.equal(row.abandoned, false)
            assert.ok(await save(id, row.epoch, row.offset + 1))
            writers -= 1
            return row.offset
          },
          TIMES,
        ),
      ),
    )
    assert.deepEqual(
      offsets.toSorted((a, b) => a - b),
      [0, 1, 2, 3, 4, 5, 6, 7],
    )
  })

  void test('is renewed for as long as the work takes, so that nobody takes it over', async () => {
    const id = await session()
    const order: string[] = []
    const begun = Promise.withResolvers<void>()
    const long = withUploadLease(
      database.db,
      id,
      async ({ signal }) => {
        order.push('first begins')
        begun.resolve()
        const end = performance.now() + TIMES.leaseMs * 2
        while (performance.now() < end) await database.db.query('select 1 as one')
        assert.equal(signal.aborted, false)
        order.push('first ends')
      },
      TIMES,
    )
    await begun.promise
    await withUploadLease(database.db, id, async () => void order.push('second begins'), TIMES)
    await long
    assert.deepEqual(order, ['first begins', 'first ends', 'second begins'])
  })

  void test('is given up before it ends where it cannot be renewed, and its taker knows that it was abandoned', async () => {
    const id = await session()
    const cut = cuttable()
    const started = performance.now()
    await withUploadLease(
      cut.db,
      id,
      async ({ row, signal }) => {
        cut.isGone = true
        const reason = await lostOf(signal)
        assert.ok(reason instanceof DatabaseUnavailable || reason instanceof RegistryError)
        assert.ok(performance.now() - started >= TIMES.leaseMs - TIMES.marginMs)
        const taken = await withUploadLease(database.db, id, async next => next.row, TIMES)
        assert.equal(taken.abandoned, true)
        assert.ok(performance.now() - started >= TIMES.leaseMs)
        assert.equal(await save(id, row.epoch, 1), false, 'a stale writer moved the offset')
      },
      TIMES,
    )
    assert.equal((await findUpload(database.db, NAME, id))?.offset, 0)
  })

  void test('is lost to a cancelled session, which the writer is told', async () => {
    const id = await session()
    await withUploadLease(
      database.db,
      id,
      async ({ signal }) => {
        await database.db.transaction(tx => tx.query('delete from upload where id = $1', [id]))
        const reason = await lostOf(signal)
        assert.ok(reason instanceof RegistryError && reason.code === 'BLOB_UPLOAD_UNKNOWN')
      },
      TIMES,
    )
    await assert.rejects(
      withUploadLease(database.db, id, async () => undefined, TIMES),
      RegistryError,
    )
  })

  void test('that another writer keeps is 503 with Retry-After in the end', async () => {
    const id = await session()
    await withUploadLease(
      database.db,
      id,
      async () => {
        const second = withUploadLease(database.db, id, async () => undefined, { ...TIMES, waitMs: 100 })
        await assert.rejects(second, error => error instanceof RegistryError && error.headers['Retry-After'] === '5')
      },
      TIMES,
    )
  })

  void test('is renewed with all others of the process in one transaction, so that many do not make each other late', async () => {
    const ids = await Promise.all(Array.from({ length: 40 }, session))
    let transactions = 0
    const counted: Database = {
      ...cuttable().db,
      transaction: work => {
        transactions += 1
        return database.db.transaction(work)
      },
    }
    const leases = new UploadLeases(counted, TIMES)
    const begun = Promise.withResolvers<void>()
    const done = Promise.withResolvers<void>()
    let holding = 0
    const held = ids.map(id =>
      leases.hold(id, async ({ signal }) => {
        holding += 1
        if (holding === ids.length) begun.resolve()
        await Promise.race([done.promise, lostOf(signal)])
        assert.equal(signal.aborted, false)
      }),
    )
    await begun.promise
    const before = transactions
    const [since] = await database.db.query<{ now: Date }>('select clock_timestamp() as now')
    const renewed = async (): Promise<boolean> => {
      const [row] = await database.db.query<{ all: boolean }>(
        `select bool_and(lease_until > $2::timestamptz + $3 * interval '1 millisecond') as all
           from upload where id = any($1::uuid[])`,
        [ids, since?.now, TIMES.leaseMs],
      )
      return row?.all === true
    }
    await until('all are renewed', renewed, TIMES.waitMs)
    const needed = transactions - before
    done.resolve()
    await Promise.all(held)
    assert.ok(needed < ids.length, `${needed} transactions for ${ids.length} leases`)
  })
})
