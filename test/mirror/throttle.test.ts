import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { PassThrough, Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { suite, test } from 'node:test'
import { Throttle, metered } from '../../src/mirror/throttle.ts'

void suite('a bandwidth for all fetches of a mirror together: a bucket of tokens', () => {
  test('whoever comes waits until those before have had their time, and idle time is not saved up', () => {
    let now = 0
    const throttle = new Throttle(1_000, () => now)
    assert.deepEqual([throttle.charge(500), throttle.charge(1_000), throttle.charge(100)], [0, 500, 1_500])
    now = 1_000
    assert.equal(throttle.charge(100), 600)
    now = 60_000
    assert.deepEqual([throttle.charge(2_000), throttle.charge(1)], [0, 2_000])
  })

  test('a stream comes whole and in order, no faster than the rate, and every byte is told', async () => {
    const bytes = randomBytes(50_000)
    const chunks = Array.from({ length: 50 }, (_, at) => bytes.subarray(at * 1_000, (at + 1) * 1_000))
    let told = 0
    const began = performance.now()
    const passing = metered(Readable.from(chunks, { objectMode: false }), {
      throttle: new Throttle(100_000),
      onBytes: count => (told += count),
      onBreak: error => assert.fail(String(error)),
    })
    assert.ok((await buffer(passing)).equals(bytes))
    assert.equal(told, bytes.byteLength)
    // Timers of Node may fire a millisecond early.
    assert.ok(performance.now() - began >= 490 - 50)
  })

  test('a body that breaks off is told; a reader that goes away is not, and takes the body with it', async () => {
    const broken: unknown[] = []
    const meter = { throttle: undefined, onBytes: () => undefined, onBreak: (error: unknown) => broken.push(error) }
    const body = new PassThrough()
    const passing = metered(body, meter)
    const failed = once(passing, 'error')
    body.destroy(new Error('broke off'))
    assert.match(String(await failed), /broke off/)
    assert.equal(broken.length, 1)
    const other = new PassThrough()
    const closed = new Promise<void>(resolve => other.once('close', resolve))
    metered(other, meter)
      .on('error', () => undefined)
      .destroy()
    await closed
    assert.equal(broken.length, 1)
  })
})
