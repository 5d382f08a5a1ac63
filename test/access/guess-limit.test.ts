import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { type Guess, GuessLimit } from '../../src/access/guess-limit.ts'
import { RegistryError } from '../../src/oci/errors.ts'

const WINDOW_SECONDS = 300
const CLIENT = '192.0.2.1'
const password = (account: string, client = CLIENT): Guess => ({ kind: 'password', account, client })
const secret = (account: string, client = CLIENT): Guess => ({ kind: 'secret', account, client })

/** A limit by a clock of the test, and what it makes of guesses: whether they were right, or the seconds to wait. */
function limited(options: { readonly perAccount: number; readonly perClient: number }): {
  readonly guess: (guess: Guess, isRight?: boolean) => Promise<boolean | number>
  readonly fail: (guess: Guess) => Promise<void>
  readonly pass: (seconds: number) => void
} {
  let now = 0
  const limit = new GuessLimit({ ...options, windowSeconds: WINDOW_SECONDS, now: () => now })
  return {
    async guess(guess, isRight = false) {
      try {
        return await limit.judge(
          guess,
          async () => isRight,
          right => right,
        )
      } catch (error) {
        assert.ok(error instanceof RegistryError && error.code === 'TOOMANYREQUESTS')
        return Number(error.headers['Retry-After'])
      }
    },
    async fail(guess) {
      const judge = async (): Promise<boolean> => {
        throw new Error('the index is down')
      }
      await assert.rejects(
        limit.judge(guess, judge, () => true),
        /the index is down/,
      )
    },
    pass(seconds) {
      now += seconds * 1000
    },
  }
}

void suite('the limit on guesses', () => {
  test('holds off until the window of the first guess ends, in seconds rounded up (RFC 9110 section 10.2.3)', async () => {
    const { guess, pass } = limited({ perAccount: 2, perClient: 100 })
    assert.equal(await guess(password('alice')), false)
    pass(100.5)
    assert.equal(await guess(password('alice')), false)
    assert.equal(await guess(password('alice'), true), 200)
    pass(199)
    assert.equal(await guess(password('alice'), true), 1)
    pass(0.5)
    assert.equal(await guess(password('alice'), true), true)
  })

  test('forgets the wrong guesses of an account from a client that then got it right, and of no other account', async () => {
    const { guess } = limited({ perAccount: 2, perClient: 4 })
    for (let round = 0; round < 3; round += 1) {
      assert.equal(await guess(password('alice')), false)
      assert.equal(await guess(password('alice'), true), true)
    }
    // Three of the client's four are used up.
    assert.equal(await guess(password('bob')), false)
    assert.equal(await guess(password('bob'), true), WINDOW_SECONDS)
  })

  test('does not count what could not be judged', async () => {
    const { guess, fail } = limited({ perAccount: 1, perClient: 1 })
    for (let round = 0; round < 5; round += 1) await fail(password('alice'))
    assert.equal(await guess(password('alice'), true), true)
  })

  test('counts what is held off neither for its account nor for its client (CWE-770)', async () => {
    const { guess } = limited({ perAccount: 1, perClient: 2 })
    assert.equal(await guess(password('alice')), false)
    for (let round = 0; round < 5; round += 1) assert.equal(await guess(password('alice')), WINDOW_SECONDS)
    assert.equal(await guess(password('bob')), false)
    assert.equal(await guess(password('carol')), WINDOW_SECONDS)
  })

  test('counts guesses made at the same time before they are judged (OWASP ASVS 5.0 section 6.3.1)', async () => {
    const { guess } = limited({ perAccount: 3, perClient: 100 })
    const outcomes = await Promise.all(Array.from({ length: 20 }, () => guess(password('alice'))))
    assert.deepEqual(
      outcomes.filter(outcome => outcome === false),
      [false, false, false],
    )
  })

  test('counts secrets apart from passwords, and judges one that was right before until it is found wrong', async () => {
    const { guess } = limited({ perAccount: 10, perClient: 2 })
    assert.equal(await guess(secret('known'), true), true)
    for (const account of ['one', 'two']) assert.equal(await guess(secret(account)), false)
    assert.equal(await guess(secret('three')), WINDOW_SECONDS)
    assert.equal(await guess(secret('known'), true), true)
    assert.equal(await guess(password('alice'), true), true)
    assert.equal(await guess(secret('known')), false)
    assert.equal(await guess(secret('known'), true), WINDOW_SECONDS)
  })

  test('is of a network: all addresses of an IPv6 /64 (RFC 7421)', async () => {
    const { guess } = limited({ perAccount: 1, perClient: 1 })
    assert.equal(await guess(password('alice', '2001:db8::1')), false)
    assert.equal(await guess(password('bob', '2001:db8::2')), WINDOW_SECONDS)
    assert.equal(await guess(password('bob', '2001:db8:0:1::2')), false)
  })
})
