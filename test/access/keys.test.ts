import assert from 'node:assert/strict'
import { after, before, beforeEach, suite, test } from 'node:test'
import { type KeyLifetimes, Keys, rotateKeysNow, rotateKeysWhenDue } from '../../src/access/keys.ts'
import { PrincipalStates } from '../../src/access/principal-states.ts'
import type { Database } from '../../src/metadata/database.ts'
import { insertPrincipal, setDisabled } from '../../src/metadata/principals.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { wrapDatabase } from '../support/wrapped-database.ts'

const HOUR_MS = 3_600_000
const LIFETIMES: KeyLifetimes = { rotationMs: 24 * HOUR_MS, longestTokenMs: 2 * HOUR_MS }

let database: TestDatabase
before(async () => {
  database = await withDatabase()
})
after(() => database.close())
beforeEach(async () => {
  await database.db.transaction(tx => tx.query('delete from signing_key'))
})

/** Lets so much time pass for the keys: their times lie so much earlier. */
async function pass(ms: number): Promise<void> {
  await database.db.transaction(tx =>
    tx.query(
      `update signing_key set signs_from = signs_from - $1 * interval '1 millisecond',
              retires_at = retires_at - $1 * interval '1 millisecond'`,
      [ms],
    ),
  )
}

/** What a process that has just started knows: the key it signs with, and those it publishes. */
async function look(): Promise<{ signer: string; published: string[] }> {
  const keys = new Keys(database.db)
  const published = (await keys.published()).map(key => (key as { kid: string }).kid)
  return { signer: (await keys.signer()).kid, published: published.toSorted() }
}

const rotate = (): Promise<boolean> => rotateKeysWhenDue(database.db, LIFETIMES)

void suite('keys that rotate when they are due (RFC 8725 section 3.1; OpenID Connect Core 1.0 section 10.1.1)', () => {
  test('two live from the start: one signs, and the next is published before it does', async () => {
    await rotate()
    const { signer, published } = await look()
    assert.equal(published.length, 2)
    assert.ok(published.includes(signer))
    assert.equal(await rotate(), false)
    assert.deepEqual(await look(), { signer, published })
  })

  test('the next one takes over in time, and the former stays published until its last token has ended', async () => {
    await rotate()
    const first = await look()
    const next = first.published.find(kid => kid !== first.signer)
    await pass(LIFETIMES.rotationMs - HOUR_MS)
    assert.equal(await rotate(), false)
    await pass(HOUR_MS)
    // It signs as soon as it is due, whether anybody rotated or not.
    assert.equal((await look()).signer, next)
    assert.equal(await rotate(), true)
    const second = await look()
    assert.deepEqual([second.signer, second.published.length], [next, 3])
    assert.ok(second.published.includes(first.signer))

    await pass(LIFETIMES.longestTokenMs)
    await rotate()
    assert.ok((await look()).published.includes(first.signer))
    // Beyond what another process may go on signing for by what it remembers.
    await pass(HOUR_MS)
    assert.equal(await new Keys(database.db).find(first.signer), undefined)
    assert.equal(await rotate(), true)
    const third = await look()
    assert.deepEqual([third.signer, third.published], [next, second.published.filter(kid => kid !== first.signer)])
  })

  test('a registry that was off for long goes on with the key that waited, and keeps no more than it needs', async () => {
    await rotate()
    await pass(10 * LIFETIMES.rotationMs)
    await rotate()
    await pass(10 * LIFETIMES.rotationMs)
    await rotate()
    assert.equal((await look()).published.length, 3)
    await pass(LIFETIMES.longestTokenMs + HOUR_MS)
    await rotate()
    assert.equal((await look()).published.length, 2)
  })

  test('processes that rotate at once rotate once', async () => {
    await rotate()
    await pass(LIFETIMES.rotationMs)
    const others = await Promise.all([database.another(), database.another()])
    await Promise.all(others.map(db => rotateKeysWhenDue(db, LIFETIMES)))
    assert.equal((await look()).published.length, 3)
  })
})

/** An index whose next answer is held back: it is read, and given only when it is let go. */
function holding(db: Database): { readonly db: Database; hold: () => { read: Promise<void>; letGo: () => void } } {
  let held: { read: () => void; gate: Promise<void> } | undefined
  return {
    hold() {
      const read = Promise.withResolvers<void>()
      const gate = Promise.withResolvers<void>()
      held = { read: read.resolve, gate: gate.promise }
      return { read: read.promise, letGo: gate.resolve }
    },
    db: wrapDatabase(db, {
      async query<R extends object>(text: string, values?: readonly unknown[]) {
        const rows = await db.query<R>(text, values)
        const mine = held
        held = undefined
        mine?.read()
        await mine?.gate
        return rows
      },
    }),
  }
}

void suite('a change that comes while what it changes is being read', () => {
  test('is not lost on the keys: those that were distrusted do not come back', async () => {
    await rotate()
    const { db, hold } = holding(database.db)
    const keys = new Keys(db)
    const { read, letGo } = hold()
    const early = keys.signer()
    await read
    await database.db.transaction(tx => rotateKeysNow(tx, LIFETIMES, true))
    keys.refresh()
    const late = keys.signer()
    letGo()
    const { kid } = await early
    assert.notEqual((await late).kid, kid)
    assert.equal(await keys.find(kid), undefined)
  })

  test('is not lost on principals: one that was disabled is not remembered as active', async () => {
    const id = await database.db.transaction(tx => insertPrincipal(tx, { kind: 'user', name: 'u', createdBy: 'test' }))
    assert.ok(id !== undefined)
    const { db, hold } = holding(database.db)
    const states = new PrincipalStates(db, HOUR_MS)
    const origin = { principalId: id, epoch: 0 }
    const { read, letGo } = hold()
    const early = states.isCurrent(origin)
    await read
    await database.db.transaction(tx => setDisabled(tx, id, true))
    states.forget(id)
    letGo()
    assert.equal(await early, true)
    assert.equal(await states.isCurrent(origin), false)
  })
})
