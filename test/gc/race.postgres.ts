import assert from 'node:assert/strict'
import { it } from 'node:test'
import { race } from './race.ts'

const BLOBS = Number(process.env['BERTH_TEST_RACE_BLOBS'] ?? 1_000)
const LIMIT_MS = Number(process.env['BERTH_TEST_RACE_LIMIT_MS'] ?? 240_000)
/** The long form: Postgres crashes and recovers in the middle. */
const RESTART = process.env['BERTH_TEST_RACE_RESTART'] === '1'
/** Less of anything would show little. */
const ENOUGH = {
  collected: BLOBS,
  pushes: 200,
  skips: 100,
  mounts: 10,
  indexes: 20,
  referrers: 10,
  moves: 3,
  uploads: 20,
  expired: 5,
  deletes: 20,
}

void it('collection and pushes race: no image breaks, no promise is broken, nothing deadlocks', async t => {
  const result = await race({ sweep: 'real', until: ENOUGH, limitMs: LIMIT_MS, restart: RESTART })
  t.diagnostic(JSON.stringify({ ...result, violations: result.violations.length }))
  assert.deepEqual(result.violations.slice(0, 5), [])
  assert.equal(result.deadlocks, 0)
  assert.equal(result.restarts, RESTART ? 1 : 0)
  for (const [name, least] of Object.entries(ENOUGH)) {
    const count = result[name as keyof typeof ENOUGH]
    assert.ok(count >= least, `only ${count} of ${least} ${name} in time`)
  }
})
