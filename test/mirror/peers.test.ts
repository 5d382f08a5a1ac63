import assert from 'node:assert/strict'
import { randomBytes, randomUUID } from 'node:crypto'
import { suite, test } from 'node:test'
import { isSigned, sign } from '../../src/mirror/peers.ts'

void suite('signatures by which processes ask each other for a fetch (RFC 2104)', () => {
  const key = randomBytes(32).toString('hex')
  const id = randomUUID()
  const now = Date.now()

  void test('one is good for its fetch, for a short time, by clocks that differ a little', () => {
    const signature = sign(key, id, now)
    for (const minutes of [-4, 0, 4]) assert.ok(isSigned(key, id, signature, now + minutes * 60_000), `${minutes}`)
  })

  const wrong = [
    ['of another fetch', sign(key, randomUUID(), now)],
    ['with another key', sign(randomBytes(32).toString('hex'), id, now)],
    ['made long ago', sign(key, id, now - 6 * 60_000)],
    ['made in the future', sign(key, id, now + 6 * 60_000)],
    ['whose time was changed', sign(key, id, now - 6 * 60_000).replace(/^\d+/, String(now))],
    ['that is cut', sign(key, id, now).slice(0, -2)],
    ['that is none', ''],
    ['that is the key', key],
  ] as const
  for (const [what, signature] of wrong) {
    void test(`one ${what} opens nothing`, () => assert.ok(!isSigned(key, id, signature, now)))
  }
})
