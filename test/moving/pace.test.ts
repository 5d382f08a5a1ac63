import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Pace } from '../../src/moving/pace.ts'

const { signal } = new AbortController()

void test('bytes of everybody together take the time that the rate gives them', async () => {
  const pace = new Pace(10_000)
  const began = performance.now()
  await Promise.all(Array.from({ length: 4 }, () => pace.pass(1_000, signal)))
  // The first pass at once, the last one when three have taken their 100 ms; timers may be a millisecond early.
  assert.ok(performance.now() - began >= 295)
})

void test('without a rate nothing waits, and who waits can be called off', async () => {
  await new Pace(undefined).pass(2 ** 50, signal)
  const pace = new Pace(1)
  await pace.pass(1_000_000, signal)
  await assert.rejects(pace.pass(1, AbortSignal.timeout(1)))
})
