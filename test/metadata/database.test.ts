import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { LostRace } from '../../src/metadata/database.ts'
import { openEmbedded } from '../../src/metadata/embedded.ts'
import { migrate } from '../../src/metadata/migrate.ts'
import { openPostgres } from '../../src/metadata/postgres.ts'
import { type TestDatabase, makeDatabase, testDriver } from '../support/database.ts'

void suite(`the index on ${testDriver}`, () => {
  let made: TestDatabase

  before(async () => {
    made = await makeDatabase({ migrated: false })
    await made.db.transaction(tx => tx.script('create table counted (n bigint); create table other (n bigint)'))
  })
  after(() => made.close())

  void test('20 migrations at once leave one schema, each applied once', async () => {
    const { url } = made
    const pools =
      url === undefined ? [] : await Promise.all(Array.from({ length: 20 }, () => openPostgres({ url, poolSize: 1 })))
    const racers = url === undefined ? Array.from({ length: 20 }, () => made.db) : pools
    const outcomes = await Promise.all(racers.map(db => migrate(db)))
    await Promise.all(pools.map(pool => pool.close()))
    assert.deepEqual(outcomes.flatMap(outcome => outcome.applied).toSorted(), ['0001-registry.sql'])
  })

  void test('bigint, bytea, timestamptz and jsonb come back as number, bytes, Date and value', async () => {
    const bytes = new Uint8Array([0, 1, 255])
    const [row] = await made.db.query<{ n: number; b: Uint8Array; t: Date; j: unknown }>(
      `select 4503599627370496::bigint as n, $1::bytea as b, '2026-01-02T03:04:05Z'::timestamptz as t, '{"a":[1]}'::jsonb as j`,
      [bytes],
    )
    assert.equal(row?.n, 2 ** 52)
    assert.deepEqual([...(row?.b ?? [])], [...bytes])
    assert.equal(row?.t.toISOString(), '2026-01-02T03:04:05.000Z')
    assert.deepEqual(row?.j, { a: [1] })
  })

  void test('what a failed transaction wrote is not there, and the index goes on working', async () => {
    await assert.rejects(
      made.db.transaction(async tx => {
        await tx.query('insert into counted values (1)')
        throw new Error('no')
      }),
      /no/,
    )
    assert.deepEqual(await made.db.query('select n from counted'), [])
  })

  void test('a lost race is run again until it is won', async () => {
    let runs = 0
    await made.db.transaction(async tx => {
      runs += 1
      await tx.query('insert into other values ($1)', [runs])
      if (runs < 3) throw new LostRace('again')
    })
    assert.deepEqual(await made.db.query('select n from other'), [{ n: 3 }])
  })

  void test('an SQL error keeps its state', async () => {
    await assert.rejects(made.db.query('select 1/0'), { code: '22012' })
  })
})

void test('a second opener of an embedded index is refused with the reason', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'berth-lock-'))
  const first = await openEmbedded({ directory: join(directory, 'index') })
  try {
    await assert.rejects(
      openEmbedded({ directory: join(directory, 'index') }),
      /another process has this data directory open/,
    )
  } finally {
    await first.close()
    await rm(directory, { recursive: true, force: true })
  }
})
