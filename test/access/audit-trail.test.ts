import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { AuditTrail } from '../../src/access/audit-trail.ts'
import { openAccess } from '../../src/access/open.ts'
import { type AuditRow, type NewAudit, insertAudit, listAudit } from '../../src/metadata/audit.ts'
import type { Database } from '../../src/metadata/database.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'

void test('what cannot be written as it is keeps nothing else from the audit (RFC 7493 section 2.1)', async () => {
  const index = await withDatabase()
  try {
    const errors: unknown[] = []
    const trail = new AuditTrail(index.db, error => errors.push(error))
    // Half a surrogate pair is what a text is left with that was cut in the middle of one.
    trail.add({ kind: 'login', outcome: 'refused', actor: 'a', detail: { reason: ['nul \0', 'half \ud83d'] } })
    trail.add({ kind: 'login', outcome: 'refused', actor: 'b', detail: { reason: 'wrong password' } })
    await trail.flush()
    assert.deepEqual(errors, [])
    const entries = await listAudit(index.db, {}, undefined, 10)
    assert.deepEqual(
      entries.map(({ actor, detail }) => [actor, detail['reason']]),
      [
        ['b', 'wrong password'],
        ['a', ['nul \ufffd', 'half \ufffd']],
      ],
    )
  } finally {
    await index.close()
  }
})

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
/** More than are removed by one statement. */
const MANY = 2_500

void suite('a flood of refusals (CWE-770, CWE-778)', () => {
  let index: TestDatabase
  before(async () => {
    index = await withDatabase()
  })
  after(() => index.close())

  const login = (actor: string): NewAudit => ({ kind: 'login', outcome: 'refused', actor, detail: {} })
  const token = (actor: string): NewAudit => ({ kind: 'token', outcome: 'ok', actor, detail: {} })
  const entries = async (of: { actor?: string; kind?: string }): Promise<readonly AuditRow[]> =>
    await listAudit(index.db, of, undefined, 10_000)

  test('is kept for the first thousand of a moment, the others are counted, and what was allowed is kept beside it', async () => {
    const trail = new AuditTrail(index.db, error => assert.fail(String(error)))
    for (let number = 0; number < 1_500; number += 1) trail.add(login('stranger'))
    trail.add(token('alice'))
    await trail.flush()
    assert.equal((await entries({ actor: 'stranger' })).length, 1_000)
    assert.equal((await entries({ actor: 'alice' })).length, 1)
    const overflow = await entries({ kind: 'audit.overflow' })
    assert.deepEqual(
      overflow.map(({ outcome, detail }) => [outcome, detail]),
      [['refused', { dropped: 500 }]],
    )
    trail.add(login('stranger'))
    await trail.flush()
    assert.equal((await entries({ actor: 'stranger' })).length, 1_001)
    assert.equal((await entries({ kind: 'audit.overflow' })).length, 1)
  })

  test('is not written twice nor lost where the index was away for a while', async () => {
    let isAway = true
    const errors: unknown[] = []
    const db = new Proxy(index.db, {
      get(target, name, receiver) {
        if (name !== 'transaction') return Reflect.get(target, name, receiver) as unknown
        return async (...args: Parameters<Database['transaction']>): Promise<unknown> => {
          if (isAway) throw new Error('the index is away')
          return await target.transaction(...args)
        }
      },
    })
    const trail = new AuditTrail(db, error => errors.push(error))
    for (let number = 0; number < 1_200; number += 1) trail.add(login('patient'))
    await trail.flush()
    for (let number = 0; number < 100; number += 1) trail.add(login('patient'))
    trail.add(token('bob'))
    await trail.flush()
    assert.equal(errors.length, 2)
    assert.equal((await entries({ actor: 'patient' })).length, 0)
    isAway = false
    await trail.flush()
    assert.equal((await entries({ actor: 'patient' })).length, 1_000)
    assert.equal((await entries({ actor: 'bob' })).length, 1)
    const [overflow] = await entries({ kind: 'audit.overflow' })
    assert.deepEqual(overflow?.detail, { dropped: 300 })
  })

  test('is removed by age, however much there is of it, and nothing younger with it', async () => {
    const { db } = index
    await db.transaction(tx => tx.query('delete from audit'))
    const insert = async (actor: string, count: number, ageMs: number): Promise<void> => {
      await db.transaction(async tx => {
        await insertAudit(
          tx,
          Array.from({ length: count }, () => login(actor)),
        )
        await tx.query("update audit set at = clock_timestamp() - $2 * interval '1 millisecond' where actor = $1", [
          actor,
          ageMs,
        ])
      })
    }
    await insert('old', MANY, DAY_MS + HOUR_MS)
    await insert('young', MANY, DAY_MS - HOUR_MS)
    await insert('new', 1, 0)
    const access = await openAccess({
      db,
      service: 'berth',
      tokenLifetimeMs: HOUR_MS,
      uploadExpiryMs: HOUR_MS,
      revocationMaxAgeMs: 0,
      keyLifetimes: { rotationMs: DAY_MS, longestTokenMs: DAY_MS },
      auditRetentionMs: DAY_MS,
      adminPassword: undefined,
      authenticators: [],
      foreign: { verify: () => Promise.resolve(undefined) },
      allowPrivateIssuers: false,
      guesses: { perAccount: 10, perClient: 100, windowSeconds: 300 },
      onError: error => assert.fail(String(error)),
    })
    // Two processes may come upon it at the same time.
    await Promise.all([access.prune(), access.prune()])
    assert.deepEqual(await Promise.all(['old', 'young', 'new'].map(async actor => (await entries({ actor })).length)), [
      0,
      MANY,
      1,
    ])
    await access.close()
  })
})
