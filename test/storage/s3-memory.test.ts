import assert from 'node:assert/strict'
import { test } from 'node:test'
import { UploadMemory } from '../../src/storage/s3-memory.ts'
import { runSeed, seeded } from '../support/random.ts'

const never = new AbortController().signal

void test('Memory beyond the budget is waited for, in the order in which it was asked for.', async () => {
  const memory = new UploadMemory(100)
  const first = await memory.acquire(60, never)
  const got: number[] = []
  const large = memory.acquire(80, never).then(buffer => {
    got.push(80)
    return buffer
  })
  // It would fit, but it came later.
  const small = memory.acquire(20, never).then(buffer => {
    got.push(20)
    return buffer
  })
  assert.equal(memory.contended, true)
  assert.equal(memory.held, 60)
  memory.release(first as Buffer)
  assert.equal((await large)?.byteLength, 80)
  assert.equal((await small)?.byteLength, 20)
  assert.deepEqual(got, [80, 20])
  assert.equal(memory.held, 100)
  assert.equal(memory.contended, false)
})

void test('Who is cancelled or runs out of time gets nothing, and lets the next pass.', async () => {
  const memory = new UploadMemory(100)
  const held = await memory.acquire(50, never)
  const cancel = new AbortController()
  const cancelled = memory.acquire(100, cancel.signal)
  const late = memory.acquire(90, never, 10)
  const next = memory.acquire(50, never)
  cancel.abort()
  assert.equal(await cancelled, undefined)
  assert.equal(await late, undefined)
  assert.equal((await next)?.byteLength, 50)
  assert.equal(await memory.acquire(1, AbortSignal.abort()), undefined)
  memory.release(held as Buffer)
  assert.equal(memory.held, 50)
})

void test('More than the whole budget is an error and not an endless wait.', () => {
  assert.throws(() => memory().acquire(101, never), RangeError)
  function memory(): UploadMemory {
    return new UploadMemory(100)
  }
})

void test('Whatever is asked for and given back, buffers in use never exceed the budget nor overlap.', async t => {
  const seed = runSeed()
  t.diagnostic(`BERTH_TEST_SEED=${seed}`)
  const random = seeded(seed)
  const memory = new UploadMemory(1000)
  let inUse = 0
  const user = async (mark: number): Promise<void> => {
    for (let turn = 0; turn < 50; turn += 1) {
      const buffer = await memory.acquire(random.pick([10, 50, 400, random.between(1, 1000)]), never)
      assert.ok(buffer !== undefined)
      inUse += buffer.byteLength
      assert.ok(inUse <= memory.held && memory.held <= 1000)
      buffer.fill(mark)
      await Promise.resolve()
      assert.ok(buffer.every(byte => byte === mark))
      inUse -= buffer.byteLength
      memory.release(buffer)
    }
  }
  await Promise.all(Array.from({ length: 8 }, (_, index) => user(index)))
  assert.equal(memory.held, 0)
})
