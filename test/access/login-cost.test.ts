import assert from 'node:assert/strict'
import crypto from 'node:crypto'
import { syncBuiltinESMExports } from 'node:module'
import { after, before, mock, suite, test } from 'node:test'
import bcrypt from 'bcrypt'
import type { AuditTrail } from '../../src/access/audit-trail.ts'
import { GuessLimit } from '../../src/access/guess-limit.ts'
import { htpasswdAuthenticator } from '../../src/access/htpasswd-login.ts'
import { HtpasswdUsers } from '../../src/access/htpasswd-users.ts'
import { Login } from '../../src/access/login.ts'
import { userAuthenticator } from '../../src/access/password-login.ts'
import { parseHtpasswd } from '../../src/auth/htpasswd.ts'
import { hashPassword } from '../../src/auth/passwords.ts'
import { insertPrincipal, setDisabled } from '../../src/metadata/principals.ts'
import { RegistryError } from '../../src/oci/errors.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'

const PASSWORD = 'a password of the tests'
const NO_AUDIT = { add: () => undefined } as unknown as AuditTrail

/** The work that judging took: each hash by its parameters, those of bcrypt by their rounds in sum. */
interface Work {
  scrypt: string[]
  bcryptRounds: number
}

void suite('what a wrong login costs tells nothing of the account (OWASP ASVS 5.0 section 6.3.8)', () => {
  let index: TestDatabase
  let filed: HtpasswdUsers
  let work: Work = { scrypt: [], bcryptRounds: 0 }

  before(async () => {
    index = await withDatabase()
    const lines = [
      ['cheap', 4],
      ['middle', 5],
      ['costly', 7],
      ['barred', 4],
      ['ours-too', 4],
    ] as const
    const hashed = await Promise.all(lines.map(async ([name, cost]) => `${name}:${await bcrypt.hash(PASSWORD, cost)}`))
    const file = parseHtpasswd(hashed.join('\n'))
    const passwordHash = await hashPassword(PASSWORD)
    await index.db.transaction(async tx => {
      const users = ['alice', 'ours-too', 'disabled'].map(name => ({ kind: 'user', name, passwordHash }) as const)
      for (const user of users) await insertPrincipal(tx, { ...user, createdBy: 'test' })
      await insertPrincipal(tx, { kind: 'robot', name: 'robot+farm', createdBy: 'test' })
    })
    // `former` has a row and stands in the file no more.
    filed = new HtpasswdUsers(index.db, { mirrored: () => undefined, delayed: () => undefined })
    for (const hashes of [new Map([...file.hashes, ['former', '']]), file.hashes]) {
      filed.take({ ...file, hashes })
      await filed.written()
    }
    await index.db.transaction(async tx => {
      const rows = await tx.query<{ id: number }>("select id from principal where name in ('disabled', 'barred')")
      for (const { id } of rows) await setDisabled(tx, id, true)
    })
    const { compare } = bcrypt
    mock.method(bcrypt, 'compare', async (password: string, hash: string) => {
      work.bcryptRounds += 2 ** bcrypt.getRounds(hash)
      return await compare(password, hash)
    })
    const { scrypt } = crypto
    const counting = (...args: Parameters<typeof scrypt>): void => {
      const { N, r, p } = args[3]
      work.scrypt.push(`${args[2]} of ${N} ${r} ${p}`)
      scrypt(...args)
    }
    mock.method(crypto, 'scrypt', counting)
    syncBuiltinESMExports()
  })
  after(async () => {
    mock.restoreAll()
    syncBuiltinESMExports()
    await index?.close()
  })

  /** The work that a login of each of these names with a wrong password takes. */
  async function workOf(hasFile: boolean, names: readonly string[]): Promise<Map<string, Work>> {
    const users = userAuthenticator(index.db)
    const chain = hasFile ? [htpasswdAuthenticator(index.db, filed), users] : [users]
    const login = new Login(chain, new GuessLimit({ perAccount: 99, perClient: 99, windowSeconds: 60 }), NO_AUDIT)
    const works = new Map<string, Work>()
    for (const name of names) {
      work = { scrypt: [], bcryptRounds: 0 }
      await assert.rejects(
        login.prove({ name, password: 'a wrong password' }, { client: '192.0.2.1', requestId: 'r' }),
        (error: unknown) => error instanceof RegistryError && error.message === 'wrong name or password',
      )
      works.set(name, work)
    }
    return works
  }

  const OURS = ['nobody', 'alice', 'disabled', 'robot+farm', '']
  const THEIRS = ['cheap', 'middle', 'costly', 'barred', 'former', 'ours-too']

  test('where users have passwords of ours', async () => {
    for (const [name, done] of await workOf(false, [...OURS, ...THEIRS])) {
      assert.deepEqual(done, { scrypt: ['32 of 32768 8 1'], bcryptRounds: 0 }, name)
    }
  })

  test('where an htpasswd file has hashes of several costs beside them', async () => {
    for (const [name, done] of await workOf(true, [...OURS, ...THEIRS])) {
      assert.deepEqual(done, { scrypt: ['32 of 32768 8 1'], bcryptRounds: 2 ** 7 }, name)
    }
  })
})
