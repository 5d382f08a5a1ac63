import assert from 'node:assert/strict'
import { after, before, beforeEach, suite, test } from 'node:test'
import bcrypt from 'bcrypt'
import { htpasswdAuthenticator } from '../../src/access/htpasswd-login.ts'
import { type HtpasswdObserver, HtpasswdUsers, proofOfHash } from '../../src/access/htpasswd-users.ts'
import { PrincipalStates } from '../../src/access/principal-states.ts'
import { parseHtpasswd } from '../../src/auth/htpasswd.ts'
import { type Database, DatabaseUnavailable, type Transaction } from '../../src/metadata/database.ts'
import { findPrincipal } from '../../src/metadata/principals.ts'
import { PASSWORD } from '../support/access.ts'
import { type TestDatabase, testDriver, withDatabase } from '../support/database.ts'
import { until } from '../support/clients.ts'
import { wrapDatabase } from '../support/wrapped-database.ts'

const SOURCE = { client: '192.0.2.1', requestId: 'r' }
const NEW_PASSWORD = `another ${PASSWORD}`
const OLD = await bcrypt.hash(PASSWORD, 4)
const NEW = await bcrypt.hash(NEW_PASSWORD, 4)

const SILENT: HtpasswdObserver = { mirrored: () => undefined, delayed: () => undefined }

let database: TestDatabase
let states: PrincipalStates

before(async () => {
  database = await withDatabase()
  states = new PrincipalStates(database.db, 0)
})
after(() => database.close())
beforeEach(async () => {
  await database.db.transaction(tx => tx.query('delete from principal'))
})

/** One process that has read these lines. */
async function processWith(...lines: string[]) {
  const users = new HtpasswdUsers(database.db, SILENT)
  const authenticator = htpasswdAuthenticator(database.db, users)
  const read = async (...now: string[]): Promise<void> => {
    users.take(parseHtpasswd(now.join('\n')))
    await users.written()
  }
  await read(...lines)
  /** Who logs in: what tokens are bound to, or why not. */
  const login = async (name: string, password: string) => {
    const verdict = await authenticator.check({ name, password }, SOURCE)
    return verdict !== undefined && 'identity' in verdict ? verdict.identity : undefined
  }
  return { users, read, login, recall: authenticator.recall }
}

const originOf = async (name: string): Promise<{ principalId: number; epoch: number }> => {
  const row = await findPrincipal(database.db, name)
  assert.ok(row !== undefined)
  return { principalId: row.id, epoch: row.epoch }
}

void suite('users of an htpasswd file, whose lines change', () => {
  test('whoever has another password now, or is gone, loses every session; others keep theirs', async () => {
    const { read } = await processWith(`alice:${OLD}`, `bob:${OLD}`, `carol:${OLD}`)
    const [alice, bob, carol] = await Promise.all(['alice', 'bob', 'carol'].map(originOf))
    assert.ok(alice !== undefined && bob !== undefined && carol !== undefined)
    const current = async (): Promise<boolean[]> =>
      await Promise.all([alice, bob, carol].map(origin => states.isCurrent(origin)))
    assert.deepEqual(await current(), [true, true, true])
    await read(`alice:${NEW}`, `bob:${OLD}`)
    assert.deepEqual(await current(), [false, true, false])
    // Who comes back begins anew.
    await read(`alice:${OLD}`, `bob:${OLD}`, `carol:${OLD}`)
    assert.deepEqual(await current(), [false, true, false])
  })

  test('each process that reads the same change finds it made: what was issued since stays good', async () => {
    const one = await processWith(`alice:${OLD}`)
    const two = await processWith(`alice:${OLD}`)
    await one.read(`alice:${NEW}`)
    const since = await one.login('alice', NEW_PASSWORD)
    assert.ok(since !== undefined)
    await two.read(`alice:${NEW}`)
    assert.equal(await states.isCurrent(since), true)
  })

  test('a process that has not read the change yet takes the former password no more', async () => {
    const late = await processWith(`alice:${OLD}`, `bob:${OLD}`)
    assert.ok((await late.login('alice', PASSWORD)) !== undefined)
    const one = await processWith(`alice:${NEW}`)
    for (const name of ['alice', 'bob']) {
      assert.equal(await late.login(name, PASSWORD), undefined)
      assert.equal(await late.recall?.({ name, password: PASSWORD }), undefined)
    }
    const identity = await one.login('alice', NEW_PASSWORD)
    assert.ok(identity !== undefined)
    assert.equal(await states.isCurrent(identity), true)
    await late.read(`alice:${NEW}`)
    assert.ok((await late.login('alice', NEW_PASSWORD)) !== undefined)
  })

  test('where there is no file any more, nobody of it logs in or goes on', async () => {
    await processWith(`alice:${OLD}`)
    const alice = await originOf('alice')
    await processWith()
    assert.equal(await states.isCurrent(alice), false)
  })
})

void suite('an index that cannot be written when the file changes', () => {
  /** The index, of which the next transactions fail. */
  function failing(times: number): { readonly db: Database; readonly left: () => number } {
    let left = times
    const { db } = database
    return {
      left: () => left,
      db: wrapDatabase(db, {
        async transaction(work) {
          if (left > 0) {
            left -= 1
            throw new DatabaseUnavailable('away')
          }
          return await db.transaction(work)
        },
      }),
    }
  }

  test('is tried again until it is, which is said once', async () => {
    await processWith(`alice:${OLD}`)
    const alice = await originOf('alice')
    const said: string[] = []
    const { db, left } = failing(3)
    const users = new HtpasswdUsers(
      db,
      { mirrored: ({ changed }) => said.push(`changed ${changed.join()}`), delayed: error => said.push(String(error)) },
      1,
    )
    users.take(parseHtpasswd(`alice:${NEW}`))
    users.keepWriting()
    await until('the rows were written', async () => !(await states.isCurrent(alice)))
    await users.close()
    assert.equal(left(), 0)
    assert.deepEqual(said, ['DatabaseUnavailable: away', 'changed alice'])
  })

  test('does not let a login by the former rows through, and a later one succeeds', async () => {
    await processWith(`alice:${OLD}`)
    const { db } = failing(1)
    const users = new HtpasswdUsers(db, SILENT)
    users.take(parseHtpasswd(`alice:${NEW}`))
    const authenticator = htpasswdAuthenticator(db, users)
    const login = async () => await authenticator.check({ name: 'alice', password: NEW_PASSWORD }, SOURCE)
    await assert.rejects(login(), DatabaseUnavailable)
    const verdict = await login()
    assert.ok(verdict !== undefined && 'identity' in verdict)
  })

  test('is not waited for where the process ends', async () => {
    const users = new HtpasswdUsers(failing(Number.POSITIVE_INFINITY).db, SILENT)
    users.take(parseHtpasswd(`alice:${NEW}`))
    users.keepWriting()
    await users.close()
  })
})

void suite('a login of who was deleted here while the file changes', () => {
  type Work<T> = (tx: Transaction) => Promise<T>

  /** A process that has read alice's line, whose next transaction is the test's own. */
  async function deleted(around: <T>(work: Work<T>, read: (...lines: string[]) => Promise<void>) => Promise<T>) {
    const { db } = database
    let isOwn = false
    const wrapped = wrapDatabase(db, {
      async transaction(work) {
        if (!isOwn) return await db.transaction(work)
        isOwn = false
        return await around(work, read)
      },
    })
    const users = new HtpasswdUsers(wrapped, SILENT)
    const read = async (...lines: string[]): Promise<void> => {
      users.take(parseHtpasswd(lines.join('\n')))
      await users.written()
    }
    await read(`alice:${OLD}`)
    await db.transaction(tx => tx.query('delete from principal'))
    isOwn = true
    const verdict = await htpasswdAuthenticator(wrapped, users).check({ name: 'alice', password: PASSWORD }, SOURCE)
    assert.equal(isOwn, false)
    return verdict
  }

  test('does not bring back a user whose line is gone', async () => {
    const verdict = await deleted(async (work, read) => {
      await read()
      return await database.db.transaction(work)
    })
    assert.ok(verdict !== undefined && 'refused' in verdict)
    assert.equal(await findPrincipal(database.db, 'alice'), undefined)
  })

  test('does not bring back one with a hash that is not in the file any more', async () => {
    const verdict = await deleted(async (work, read) => {
      await read(`alice:${NEW}`)
      await database.db.transaction(tx => tx.query('delete from principal'))
      return await database.db.transaction(work)
    })
    assert.ok(verdict !== undefined && 'refused' in verdict)
    assert.equal(await findPrincipal(database.db, 'alice'), undefined)
  })

  test('leaves no former password to a process that reads the new file beside it', async () => {
    const other = await processWith()
    let reading: Promise<void> | undefined
    await deleted(async work => {
      return await database.db.transaction(async tx => {
        const result = await work(tx)
        reading = other.read(`alice:${NEW}`)
        // An embedded index does one transaction after the other.
        if (testDriver === 'postgres') {
          await until('the other process waits', async () => {
            const waiting = await database.db.query(
              `select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
            )
            return waiting.length > 0
          })
        }
        return result
      })
    })
    assert.ok(reading !== undefined)
    await reading
    assert.equal((await findPrincipal(database.db, 'alice'))?.external_proof, proofOfHash(NEW))
    assert.equal(await other.login('alice', PASSWORD), undefined)
    assert.ok((await other.login('alice', NEW_PASSWORD)) !== undefined)
  })
})
