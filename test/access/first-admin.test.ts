import assert from 'node:assert/strict'
import { afterEach, beforeEach, it } from 'node:test'
import { ensureFirstAdmin } from '../../src/access/first-admin.ts'
import { putGrant } from '../../src/metadata/grants.ts'
import { findPrincipal, insertPrincipal, setDisabled } from '../../src/metadata/principals.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'

let index: TestDatabase
beforeEach(async () => {
  index = await withDatabase()
})
afterEach(() => index.close())

async function addUser(name: string, ...actions: string[]): Promise<number> {
  return await index.db.transaction(async tx => {
    const id = await insertPrincipal(tx, { kind: 'user', name, createdBy: 'test' })
    assert.ok(id !== undefined)
    const grant = { subject: 'principal', principalId: id, pattern: '**', actions, createdBy: 'test' } as const
    if (actions.length > 0) await putGrant(tx, grant)
    return id
  })
}

void it('the first start makes one administrator, however many processes start, and shows one password', async () => {
  const outcomes = await Promise.all(Array.from({ length: 4 }, () => ensureFirstAdmin(index.db, undefined)))
  assert.equal(outcomes.filter(outcome => outcome.generatedPassword !== undefined).length, 1)
  assert.deepEqual(await ensureFirstAdmin(index.db, undefined), { nobodyAdministers: false })
})

void it('users that were made while the registry was open do not keep the administrator from being made', async () => {
  await addUser('alice', 'push')
  const { generatedPassword } = await ensureFirstAdmin(index.db, undefined)
  assert.match(generatedPassword ?? '', /^\w{24}$/)
  assert.equal((await findPrincipal(index.db, 'admin'))?.kind, 'user')
})

void it('a user who administers everything already is enough', async () => {
  await addUser('root', 'admin')
  assert.deepEqual(await ensureFirstAdmin(index.db, undefined), { nobodyAdministers: false })
  assert.equal(await findPrincipal(index.db, 'admin'), undefined)
})

void it('a user admin who does not administer is left as it is, and the start can say so', async () => {
  const id = await addUser('admin', 'admin')
  await index.db.transaction(tx => setDisabled(tx, id, true))
  assert.deepEqual(await ensureFirstAdmin(index.db, 'a password of the tests'), { nobodyAdministers: true })
  assert.equal((await findPrincipal(index.db, 'admin'))?.active, false)
})
