import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import type { Database } from '../../src/metadata/database.ts'
import { confirmRun } from '../../src/metadata/retention-runs.ts'
import { parseName, parseReference } from '../../src/oci/name.ts'
import { nextRun, scheduleFault } from '../../src/jobs/cron.ts'
import { startDueRuns } from '../../src/retention/schedule.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { type TestRegistry, pushImage, withRegistry } from '../support/registry.ts'
import { LIFETIMES, age, ask, makePolicy, runOf, tagsOf, work } from '../support/retention.ts'

const ROUNDS = 8
const TAGS = 6

void suite('retention beside others', () => {
  let database: TestDatabase
  let db: Database
  let other: Database
  let opened: TestRegistry

  before(async () => {
    database = await withDatabase()
    ;({ db } = database)
    other = await database.another()
    opened = await withRegistry(db, { lifetimes: LIFETIMES })
  })
  after(async () => {
    await opened.close()
    await database.close()
  })

  test('against pushes that move the tags: what was pushed is there, whoever was first', async () => {
    await makePolicy(db, 'moving', { pattern: 'race/moving', rules: ['pushed within 14d'] })
    const names = Array.from({ length: TAGS }, (_, index) => `t${index}`)
    for (let round = 0; round < ROUNDS; round++) {
      for (const name of names) await pushImage(opened.registry, 'race/moving', name)
      await age(db, 'race/moving', 20)
      const id = await ask(db, 'moving', 'plan')
      await work(db)
      assert.equal((await runOf(db, id)).going, TAGS)
      await db.transaction(tx => confirmRun(tx, id))
      const [, ...pushed] = await Promise.all([
        work(other),
        ...names.map(async name => ({ name, digest: await pushImage(opened.registry, 'race/moving', name) })),
      ])
      for (const { name, digest } of pushed) {
        const manifest = await opened.registry.statManifest(parseName('race/moving'), parseReference(name), {
          mayPush: false,
        })
        assert.equal(manifest.digest, digest)
      }
      const { state, removed, spared } = await runOf(db, id)
      assert.deepEqual([state, removed + spared], ['done', TAGS])
    }
  })

  test('two processes that work at once remove each tag once', async () => {
    await makePolicy(db, 'twice', { pattern: 'race/twice', rules: ['pushed within 14d'] })
    for (let tag = 0; tag < TAGS; tag++) await pushImage(opened.registry, 'race/twice', `t${tag}`)
    await age(db, 'race/twice', 20)
    const ids = [await ask(db, 'twice'), await ask(db, 'twice')]
    await Promise.all([work(db), work(other), work(db), work(other)])
    assert.deepEqual(await tagsOf(db, 'race/twice'), [])
    const [row] = await db.query<{ removals: number }>(
      `select count(*)::int as removals from tag_history h join repository r on r.id = h.repository_id
        where r.name = 'race/twice' and h.new_digest is null`,
    )
    assert.equal(row?.removals, TAGS)
    const runs = await Promise.all(ids.map(id => runOf(db, id)))
    assert.equal(
      runs.reduce((sum, run) => sum + run.removed, 0),
      TAGS,
    )
  })

  test('a schedule that is due runs once, however many processes look, and then at its next time', async () => {
    for (const name of ['due-1', 'due-2', 'due-3']) {
      await makePolicy(db, name, {
        pattern: 'race/none',
        rules: ['newest 1'],
        schedule: '0 3 * * *',
        next_run_at: new Date('2026-01-01T03:00:00Z'),
      })
    }
    const started = await Promise.all([db, other, db, other].map(each => startDueRuns(each)))
    assert.equal(
      started.reduce((sum, count) => sum + count, 0),
      3,
    )
    const rows = await db.query<{ runs: number; later: boolean }>(
      `select (select count(*)::int from retention_run r where r.policy_id = p.id) as runs, next_run_at > now() as later
         from retention_policy p where name like 'due-%'`,
    )
    assert.deepEqual(
      rows,
      Array.from({ length: 3 }, () => ({ runs: 1, later: true })),
    )
  })

  test('a schedule that came due while its policy is being worked off waits for its next time', async () => {
    const schedule = { schedule: '* * * * *', next_run_at: new Date(0) }
    await makePolicy(db, 'busy', { pattern: 'race/none', rules: ['newest 1'], ...schedule })
    await ask(db, 'busy')
    assert.equal(await startDueRuns(db), 0)
  })

  test('schedules go by the clock of their time zone, also over the change to summer time (IANA tz, Europe/Berlin)', () => {
    const next = (schedule: string, after: string): string | undefined =>
      nextRun({ schedule, timeZone: 'Europe/Berlin' }, new Date(after))?.toISOString()
    assert.equal(next('0 3 * * *', '2026-01-10T12:00:00Z'), '2026-01-11T02:00:00.000Z')
    assert.equal(next('0 3 * * *', '2026-07-10T12:00:00Z'), '2026-07-11T01:00:00.000Z')
    assert.equal(next('30 2 * * *', '2026-03-28T12:00:00Z'), '2026-03-29T01:00:00.000Z')
    assert.equal(next('30 2 * * *', '2026-10-24T12:00:00Z'), '2026-10-25T00:30:00.000Z')
    assert.equal(next('30 2 * * *', '2026-10-25T00:30:00Z'), '2026-10-26T01:30:00.000Z')
  })

  test('what is no schedule or no time zone is a fault', () => {
    assert.equal(scheduleFault({ schedule: '0 3 * * 1-5', timeZone: 'UTC' }), undefined)
    for (const [schedule, timeZone] of [
      ['', 'UTC'],
      ['every day', 'UTC'],
      ['61 3 * * *', 'UTC'],
      ['0 0 3 * * *', 'UTC'],
      ['0 3 30 2 *', 'UTC'],
      ['0 3 * * *', 'Berlin'],
    ] as const) {
      assert.notEqual(scheduleFault({ schedule, timeZone }), undefined, `${schedule} ${timeZone}`)
    }
  })
})
