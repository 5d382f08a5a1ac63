import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import bcrypt from 'bcrypt'
import { hashPassword, isBusy, verifyPassword } from '../../src/auth/passwords.ts'
import { RegistryError } from '../../src/oci/errors.ts'

const PASSWORD = 'correct horse battery staple'

test('a password is right for its own hash alone, and each hash has a salt of its own (NIST SP 800-63B section 3.1.1.2)', async () => {
  const [one, other] = await Promise.all([hashPassword(PASSWORD), hashPassword(PASSWORD)])
  assert.notEqual(one, other)
  assert.deepEqual(await Promise.all([verifyPassword(PASSWORD, one), verifyPassword(PASSWORD, other)]), [true, true])
  assert.equal(await verifyPassword(`${PASSWORD} `, one), false)
  assert.equal(await verifyPassword(PASSWORD, one.replace(/[^$]+$/, '')), false)
})

test('what is no hash of ours is right for nothing', async () => {
  for (const hash of ['', 'scrypt', 'scrypt$', '$2y$05$abcdefghijklmnopqrstuv', PASSWORD]) {
    assert.equal(await verifyPassword(PASSWORD, hash), false)
  }
})

/** Hashes run on the same few threads as the reading of files: logins must not hold up pulls. */
for (const [kind, makeHash] of [
  ['scrypt', () => hashPassword(PASSWORD)],
  ['bcrypt', () => bcrypt.hash(PASSWORD, 10)],
] as const) {
  test(`a file is read while many passwords wait for their turn, by ${kind}`, async () => {
    const hash = await makeHash()
    let verified = 0
    const logins = Array.from({ length: 32 }, async (_, index) => {
      await verifyPassword(`guess ${index}`, hash)
      verified += 1
    })
    await readFile(import.meta.filename)
    const verifiedBefore = verified
    await Promise.all(logins)
    assert.ok(verifiedBefore < 16, `${verifiedBefore} passwords were verified before the file was read`)
  })
}

test('who has most passwords waiting is refused the newest with 503 and Retry-After, and nobody else is (RFC 9110 section 15.6.4)', async () => {
  const hash = await bcrypt.hash(PASSWORD, 4)
  const outcomes = async (party: string, count: number): Promise<readonly (boolean | undefined)[]> =>
    await Promise.all(
      Array.from({ length: count }, async () => {
        try {
          return await verifyPassword(PASSWORD, hash, party)
        } catch (error) {
          assert.ok(error instanceof RegistryError && isBusy(error))
          assert.equal(error.status, 503)
          assert.match(error.headers['Retry-After'] ?? '', /^[1-9]\d*$/)
          return undefined
        }
      }),
    )
  const [stranger, alice] = await Promise.all([outcomes('stranger', 400), outcomes('alice', 20)])
  assert.deepEqual(new Set(alice), new Set([true]))
  // Two ran, and of 256 that waited twenty gave way.
  assert.equal(stranger.filter(outcome => outcome === true).length, 2 + 256 - 20)
  assert.equal(isBusy(new RegistryError('UNAVAILABLE')), false)
})
