import assert from 'node:assert/strict'
import { after, before, beforeEach, suite, test } from 'node:test'
import { PrincipalStates } from '../../src/access/principal-states.ts'
import { makeSecret } from '../../src/auth/secrets.ts'
import { findSecret, insertAccessToken, insertSecret } from '../../src/metadata/access-tokens.ts'
import { findPrincipals, insertPrincipal, setDisabled, setPasswordHash } from '../../src/metadata/principals.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { wrapDatabase } from '../support/wrapped-database.ts'

const HOUR_MS = 3_600_000

let database: TestDatabase

before(async () => {
  database = await withDatabase()
})
after(() => database.close())
beforeEach(async () => {
  await database.db.transaction(tx => tx.query('delete from principal'))
})

/** What one process remembers for an hour, and how often it has read since. */
function processOf(): { readonly states: PrincipalStates; readonly reads: () => number } {
  let reads = 0
  const db = wrapDatabase(database.db, {
    async query<R extends object>(text: string, values?: readonly unknown[]) {
      reads += 1
      return await database.db.query<R>(text, values)
    },
  })
  return { states: new PrincipalStates(db, HOUR_MS), reads: () => reads }
}

async function user(name: string): Promise<number> {
  const id = await database.db.transaction(tx => insertPrincipal(tx, { kind: 'user', name, createdBy: 'test' }))
  assert.ok(id !== undefined)
  return id
}

/** What a token that is issued now is bound to. */
async function login(principalId: number): Promise<{ principalId: number; epoch: number }> {
  const [row] = await findPrincipals(database.db, [principalId])
  assert.ok(row?.active)
  return { principalId, epoch: row.epoch }
}

void suite('what a process remembers of a principal', () => {
  test('does not refuse who logged in at another process after the password changed', async () => {
    const { states } = processOf()
    const id = await user('alice')
    const former = await login(id)
    assert.equal(await states.isCurrent(former), true)
    await database.db.transaction(tx => setPasswordHash(tx, id, 'another'))
    const fresh = await login(id)
    assert.equal(states.recall(fresh), undefined)
    assert.equal(await states.isCurrent(fresh), true)
    assert.equal(states.recall(fresh), true)
    assert.equal(states.recall(former), false)
  })

  test('does not refuse who logged in at another process after being enabled again', async () => {
    const { states } = processOf()
    const id = await user('alice')
    const former = await login(id)
    await database.db.transaction(tx => setDisabled(tx, id, true))
    assert.equal(await states.isCurrent(former), false)
    await database.db.transaction(tx => setDisabled(tx, id, false))
    const fresh = await login(id)
    assert.equal(await states.isCurrent(fresh), true)
    assert.equal(await states.isCurrent(former), false)
  })

  test('does not refuse a principal of an id that nobody had when it was looked for', async () => {
    const { states } = processOf()
    const next = (await user('alice')) + 1
    assert.equal(await states.isCurrent({ principalId: next, epoch: 0 }), false)
    assert.equal(await user('bob'), next)
    assert.equal(await states.isCurrent(await login(next)), true)
  })

  test('refuses the tokens of who was disabled without reading again for each of them', async () => {
    const { states, reads } = processOf()
    const id = await user('alice')
    const former = await login(id)
    await database.db.transaction(tx => setDisabled(tx, id, true))
    assert.equal(await states.isCurrent(former), false)
    const readBefore = reads()
    for (let i = 0; i < 100; i += 1) assert.equal(await states.isCurrent(former), false)
    assert.equal(reads(), readBefore)
  })

  test('is read again in one query for all who ask together', async () => {
    const { states, reads } = processOf()
    const id = await user('alice')
    await states.isCurrent(await login(id))
    await database.db.transaction(tx => setPasswordHash(tx, id, 'another'))
    const fresh = await login(id)
    const readBefore = reads()
    const answers = await Promise.all(Array.from({ length: 100 }, () => states.isCurrent(fresh)))
    assert.deepEqual([...new Set(answers)], [true])
    assert.equal(reads(), readBefore + 1)
  })
})

void suite('the first login of a principal', () => {
  test('leaves what is remembered of others and of their secrets, and what is being read of them', async () => {
    const [alice, bob, carol] = [await user('alice'), await user('bob'), await user('carol')]
    const secret = makeSecret('pat')
    const secretId = await database.db.transaction(async tx => {
      const token = { principalId: alice, name: 'laptop', scopes: undefined, expiresAt: undefined }
      const id = await insertAccessToken(tx, token)
      assert.ok(id !== undefined)
      await insertSecret(tx, id, secret.hash)
      return (await findSecret(tx, secret.hash))?.id
    })
    assert.ok(secretId !== undefined)
    const { states } = processOf()
    const laptop = { ...(await login(alice)), secretId }
    assert.equal(await states.isCurrent(laptop), true)
    const other = await login(bob)
    const beingRead = states.isCurrent(other)
    // The query of the one before is on its way.
    await Promise.resolve()
    assert.equal(await states.isCurrentNow(await login(carol)), true)
    assert.equal(await beingRead, true)
    assert.equal(states.recall(laptop), true)
    assert.equal(states.recall(other), true)
  })

  test('after a change goes by the row as it is now', async () => {
    const { states } = processOf()
    const id = await user('alice')
    const former = await login(id)
    assert.equal(await states.isCurrentNow(former), true)
    await database.db.transaction(tx => setPasswordHash(tx, id, 'another'))
    const fresh = await login(id)
    assert.equal(await states.isCurrentNow(fresh), true)
    await database.db.transaction(tx => setDisabled(tx, id, true))
    states.forget(id)
    assert.equal(await states.isCurrentNow(fresh), false)
  })
})
