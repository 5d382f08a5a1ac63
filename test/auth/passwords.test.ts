import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import bcrypt from 'bcrypt'
import { hashPassword, verifyPassword } from '../../src/auth/passwords.ts'

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
