import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Turns } from '../../src/auth/turns.ts'

test('no more than so many run at once, in the order in which they came, also when some fail', async () => {
  const turns = new Turns(2)
  const gates = Array.from({ length: 6 }, () => Promise.withResolvers<void>())
  const begun: number[] = []
  const all = Promise.allSettled(
    gates.map((gate, index) =>
      turns.take(async () => {
        begun.push(index)
        await gate.promise
        return index
      }),
    ),
  )
  const settle = async (): Promise<void> => await new Promise(resolve => setImmediate(resolve))
  await settle()
  assert.deepEqual(begun, [0, 1])
  gates[1]?.reject(new Error('it fails'))
  await settle()
  assert.deepEqual(begun, [0, 1, 2])
  for (const gate of gates) gate.resolve()
  const results = await all
  assert.deepEqual(begun, [0, 1, 2, 3, 4, 5])
  assert.deepEqual(
    results.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled', 'fulfilled', 'fulfilled', 'fulfilled'],
  )
  assert.equal(await turns.take(async () => 'again'), 'again')
})
