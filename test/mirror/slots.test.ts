import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { Slots } from '../../src/mirror/slots.ts'

const never = new AbortController().signal
const LONG_MS = 600_000

void suite('places that are had by one at a time', () => {
  void test('who finds none free waits, and they are given in order', async () => {
    const slots = new Slots(1)
    const order: string[] = []
    const first = await slots.take(LONG_MS, never)
    const waiting = ['a', 'b', 'c'].map(async name => {
      const giveBack = await slots.take(LONG_MS, never)
      order.push(name)
      giveBack?.()
    })
    await new Promise(setImmediate)
    assert.deepEqual(order, [])
    first?.()
    await Promise.all(waiting)
    assert.deepEqual(order, ['a', 'b', 'c'])
  })

  void test('who has waited long enough gets none, and takes none from those behind', async () => {
    const slots = new Slots(1)
    const first = await slots.take(LONG_MS, never)
    const late = slots.take(1, never)
    const patient = slots.take(LONG_MS, never)
    assert.equal(await late, undefined)
    first?.()
    assert.notEqual(await patient, undefined)
  })

  void test('who goes away while waiting is told so and takes none', async () => {
    const slots = new Slots(1)
    const first = await slots.take(LONG_MS, never)
    const leaving = new AbortController()
    const gone = slots.take(LONG_MS, leaving.signal)
    leaving.abort(new Error('gone'))
    // In the same turn, when both have happened: the place must not be lost with who left.
    first?.()
    await assert.rejects(gone, /gone/)
    assert.notEqual(await slots.take(LONG_MS, never), undefined)
  })

  void test('giving back twice gives back once', async () => {
    const slots = new Slots(1)
    const first = await slots.take(LONG_MS, never)
    first?.()
    first?.()
    assert.notEqual(await slots.take(1, never), undefined)
    assert.equal(await slots.take(1, never), undefined)
  })
})
