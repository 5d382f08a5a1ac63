import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { suite, test } from 'node:test'
import { IssuerFault } from '../../src/access/issuer-fetch.ts'
import { type IssuerKey, IssuerKeys } from '../../src/access/issuer-keys.ts'

const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS
const ISSUER = 'https://issuer.example'

const key: IssuerKey = {
  key: generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey,
  algorithms: ['ES256'],
}

/** An issuer with one key, and the clock that it is asked by. */
function scene() {
  const state = { now: 0, isDown: false, kids: ['one'] }
  const said: string[] = []
  const keys = new IssuerKeys(
    async () => {
      if (state.isDown) throw new IssuerFault('does not answer')
      return new Map(state.kids.map(kid => [kid, key] as const))
    },
    () => state.now,
    (issuer, error) => said.push(`${issuer} ${error.message}`),
  )
  const find = async (kid = 'one'): Promise<boolean> => (await keys.find(ISSUER, kid)) !== undefined
  return { state, said, find }
}

void suite('keys of an issuer that cannot be asked', () => {
  test('go on counting for a day, and not longer: they may have been withdrawn (RFC 7517 section 5)', async () => {
    const { state, find } = scene()
    assert.equal(await find(), true)
    state.isDown = true
    for (const hour of [1, 12, 23]) {
      state.now = hour * HOUR_MS
      assert.equal(await find(), true)
    }
    state.now = 24 * HOUR_MS
    await assert.rejects(find(), IssuerFault)
    state.isDown = false
    state.now += MINUTE_MS
    assert.equal(await find(), true)
  })

  test('one that is not among them is a fault of the issuer, not of who shows it: it may be a new one', async () => {
    const { state, find } = scene()
    assert.equal(await find('two'), false)
    state.isDown = true
    state.now = HOUR_MS
    await assert.rejects(find('two'), IssuerFault)
  })

  test('are said to be old once for each time that the issuer goes down', async () => {
    const { state, said, find } = scene()
    await find()
    assert.deepEqual(said, [])
    state.isDown = true
    for (let turn = 1; turn < 5; turn += 1) {
      state.now = HOUR_MS + turn * MINUTE_MS
      assert.equal(await find(), true)
    }
    assert.deepEqual(said, [`${ISSUER} does not answer`])
    state.isDown = false
    state.now += MINUTE_MS
    await find()
    state.isDown = true
    state.now += HOUR_MS
    await find()
    assert.equal(said.length, 2)
  })

  test('one that was withdrawn counts no more within minutes while the issuer answers', async () => {
    const { state, find } = scene()
    await find()
    state.kids = ['two']
    state.now = 10 * MINUTE_MS
    assert.deepEqual([await find('one'), await find('two')], [false, true])
  })
})
