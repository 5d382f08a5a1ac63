import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { parseDigest } from '../../src/oci/digest.ts'
import { parseName } from '../../src/oci/name.ts'
import { FetchLeases } from '../../src/registry/fetch-leases.ts'
import { digestOf } from '../support/client.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'

const NAME = parseName('hub/library/alpine')
const TIMES = { leaseMs: 600_000, renewMs: 600_000 }
/** Over as soon as it is taken, and never renewed. */
const OVER = { leaseMs: 0, renewMs: 600_000 }

void suite('who fetches a blob for all processes', () => {
  let database: TestDatabase
  before(async () => {
    database = await withDatabase()
  })
  after(() => database.close())

  const leases = (address: string, times = TIMES): FetchLeases =>
    new FetchLeases(database.db, () => ({ address, directory: undefined }), times)
  const digest = (text: string) => parseDigest(digestOf(text))

  void test('of many that ask at once one has it, and the others are told where it is', async () => {
    const blob = digest('many')
    const taken = await Promise.all(Array.from({ length: 20 }, (_, i) => leases(`http://p${i}`).take(NAME, blob)))
    const held = taken.filter(fetch => fetch.kind === 'held')
    assert.equal(held.length, 1)
    const others = taken.filter(fetch => fetch.kind === 'other')
    for (const { id, key } of others) assert.deepEqual([id, key], [held[0]?.id, held[0]?.key])
    await held[0]?.release()
    assert.equal((await leases('http://next').take(NAME, blob)).kind, 'held')
  })

  void test('of many that find its owner gone one takes over, and those that come late do not take it from that one', async () => {
    const blob = digest('gone')
    const dead = await leases('http://dead').take(NAME, blob)
    const taken = await Promise.all(
      Array.from({ length: 20 }, (_, i) => leases(`http://p${i}`).take(NAME, blob, dead.id)),
    )
    assert.equal(taken.filter(fetch => fetch.kind === 'held').length, 1)
    assert.equal((await leases('http://late').take(NAME, blob, dead.id)).kind, 'other')
  })

  void test('a lease that has ended is free', async () => {
    const blob = digest('ended')
    await leases('http://hangs', OVER).take(NAME, blob)
    assert.equal(await leases('http://looks').find(NAME, blob), undefined)
    assert.equal((await leases('http://next').take(NAME, blob)).kind, 'held')
  })

  void test('an owner that is late changes nothing of the one that took over', async () => {
    const blob = digest('late')
    const late = await leases('http://late', OVER).take(NAME, blob)
    assert.ok(late.kind === 'held')
    const next = await leases('http://next').take(NAME, blob)
    assert.ok(next.kind === 'held')
    await late.place('of-the-late.blob', 1)
    await late.release()
    const found = await leases('http://looks').find(NAME, blob)
    assert.deepEqual([found?.id, found?.address, found?.file], [next.id, 'http://next', null])
  })

  void test('what living owners keep in a directory is known, and what dead ones left long ago is forgotten', async () => {
    const inDirectory = (times = TIMES): FetchLeases =>
      new FetchLeases(database.db, () => ({ address: undefined, directory: DIRECTORY }), times)
    const living = await inDirectory().take(NAME, digest('living'))
    const dead = await inDirectory().take(NAME, digest('dead'))
    assert.ok(living.kind === 'held' && dead.kind === 'held')
    await living.place('living.blob', 1)
    await dead.place('dead.blob', 1)
    const end = `update mirror_fetch set lease_until = clock_timestamp() - interval '1 hour' where id = $1`
    await database.db.query(end, [dead.id])
    assert.deepEqual([...(await inDirectory().clean(DIRECTORY))], ['living.blob'])
  })
})

const DIRECTORY = '11111111-1111-4111-8111-111111111111'
