// Part of `npm run soak:race`: how soon chance finds a fault is nobody's promise. guilty.postgres.ts has the same faults in
// scenes that always find them.
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { race } from './race.ts'
import type { SweepName } from './sweeps.ts'

const LIMIT_MS = 600_000

for (const sweep of ['merged', 'early', 'bound', 'careless'] satisfies SweepName[]) {
  void it(`the race finds a sweep guilty that is broken (${sweep})`, async t => {
    const began = performance.now()
    const result = await race({ sweep, until: {}, limitMs: LIMIT_MS, restart: false })
    t.diagnostic(`${Math.round(performance.now() - began)} ms: ${result.violations[0]?.split('\n')[0]}`)
    assert.ok(result.violations.length > 0, 'the broken sweep went unnoticed')
  })
}
