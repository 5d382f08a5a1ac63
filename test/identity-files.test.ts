import assert from 'node:assert/strict'
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import bcrypt from 'bcrypt'
import { htpasswdLogins } from '../src/identity-files.ts'
import { createLog } from '../src/log.ts'
import { DatabaseUnavailable } from '../src/metadata/database.ts'
import { findPrincipal } from '../src/metadata/principals.ts'
import { PASSWORD } from './support/access.ts'
import { until } from './support/clients.ts'
import { type TestDatabase, withDatabase } from './support/database.ts'
import { wrapDatabase } from './support/wrapped-database.ts'

const OFTEN = { look: 5, retry: 5 }

let database: TestDatabase
let directory: string
before(async () => {
  database = await withDatabase()
  directory = await mkdtemp(join(tmpdir(), 'berth-test-identities-'))
})
after(async () => {
  await database.close()
  await rm(directory, { recursive: true, force: true })
})

test('an index that is away while the htpasswd file changes is no fault of the file, and its users follow once it is back', async () => {
  const path = join(directory, 'htpasswd')
  const line = async (name: string): Promise<string> => `${name}:${await bcrypt.hash(PASSWORD, 4)}\n`
  const [alice, bob] = await Promise.all([line('alice'), line('bob')])
  await writeFile(path, alice)
  const lines: string[] = []
  const log = createLog({ level: 'info', format: 'json' }, { write: text => void lines.push(text) })
  const said = (text: string): number => lines.filter(entry => entry.includes(text)).length
  let isAway = false
  const db = wrapDatabase(database.db, {
    async transaction(work) {
      if (isAway) throw new DatabaseUnavailable('away')
      return await database.db.transaction(work)
    },
  })
  await using opened = new AsyncDisposableStack()
  await htpasswdLogins(path, db, log, OFTEN).start(opened)
  assert.equal((await findPrincipal(database.db, 'alice'))?.active, true)

  isAway = true
  await writeFile(`${path}.new`, `${alice}${bob}`)
  await rename(`${path}.new`, path)
  await until('it is said', async () => said('the index cannot be written now') > 0)
  assert.equal(said('was read again'), 1)
  isAway = false
  await until('bob is there', async () => (await findPrincipal(database.db, 'bob'))?.active === true)
  assert.deepEqual([said('the index cannot be written now'), said('cannot be used')], [1, 0])
})

test('without an htpasswd file those who were in one are there, and are let in no more', async () => {
  const log = createLog({ level: 'silent', format: 'json' })
  const path = join(directory, 'former')
  await writeFile(path, `carol:${await bcrypt.hash(PASSWORD, 4)}\n`)
  for (const [file, isActive] of [
    [path, true],
    [undefined, false],
    [path, true],
  ] as const) {
    await using opened = new AsyncDisposableStack()
    await htpasswdLogins(file, database.db, log, OFTEN).start(opened)
    assert.equal((await findPrincipal(database.db, 'carol'))?.active, isActive)
  }
})
