import assert from 'node:assert/strict'
import { it } from 'node:test'
import { race } from './race.ts'
import type { SweepName } from './sweeps.ts'

const BLOBS = Number(process.env['BERTH_TEST_RACE_BLOBS'] ?? 1_000)
const LIMIT_MS = Number(process.env['BERTH_TEST_RACE_LIMIT_MS'] ?? 240_000)

void it('collection and pushes race: no image breaks, no promise is broken, nothing deadlocks', async () => {
  const result = await race('real', BLOBS, LIMIT_MS)
  console.log(`race: ${JSON.stringify({ ...result, violations: result.violations.length })}`)
  assert.deepEqual(result.violations.slice(0, 5), [])
  assert.equal(result.deadlocks, 0)
  assert.ok(result.collected >= BLOBS, `only ${result.collected} blobs were collected in time`)
  assert.ok(result.pushes > 100 && result.skips > 100 && result.mounts > 10 && result.deletes > 10)
})

for (const sweep of ['merged', 'early'] satisfies SweepName[]) {
  void it(`the race finds a sweep guilty that is broken (${sweep})`, async () => {
    const result = await race(sweep, Number.POSITIVE_INFINITY, 120_000)
    assert.ok(result.violations.length > 0, 'the broken sweep went unnoticed')
  })
}
