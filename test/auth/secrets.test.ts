import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hashSecret, makeSecret, secretKind } from '../../src/auth/secrets.ts'
import { generatePassword, hashPassword, passwordFault, verifyPassword } from '../../src/auth/passwords.ts'

test('a secret tells its kind, is found by its hash, and is never the same', () => {
  for (const kind of ['pat', 'robot', 'refresh'] as const) {
    const [one, other] = [makeSecret(kind), makeSecret(kind)]
    assert.equal(secretKind(one.text), kind)
    assert.deepEqual(one.hash, hashSecret(one.text))
    assert.notEqual(one.text, other.text)
    assert.match(one.text, /^[A-Za-z0-9_-]+$/, 'safe in every shell')
  }
})

test('a mistyped secret is known by its checksum', () => {
  const { text } = makeSecret('robot')
  for (let at = 0; at < text.length; at += 1) {
    const other = text[at] === 'a' ? 'b' : 'a'
    assert.equal(secretKind(text.slice(0, at) + other + text.slice(at + 1)), undefined, `at ${at}`)
  }
  for (const wrong of ['', text.slice(1), `${text}0`, text.replace('_rob_', '_pat_')]) {
    assert.equal(secretKind(wrong), undefined)
  }
})

test('a password is verified against its own hash, and hashes have their own salt (NIST SP 800-63B section 3.1.1.2)', async () => {
  const [one, other] = await Promise.all([hashPassword('the right one'), hashPassword('the right one')])
  assert.notEqual(one, other)
  assert.equal(await verifyPassword('the right one', one), true)
  assert.equal(await verifyPassword('the wrong one', one), false)
  assert.equal(await verifyPassword('', one), false)
})

test('what is no hash verifies nothing', async () => {
  for (const hash of ['', 'x', 'scrypt', 'scrypt$1', '$2y$05$abcdefghijklmnopqrstuv']) {
    assert.equal(await verifyPassword('', hash), false, hash)
  }
})

test('a chosen password is long enough and bounded, counted in characters and in bytes', () => {
  assert.match(passwordFault('short') ?? '', /at least 12/)
  assert.equal(passwordFault('x'.repeat(12)), undefined)
  assert.equal(passwordFault('x'.repeat(1_024)), undefined)
  assert.match(passwordFault('ä'.repeat(600)) ?? '', /at most 1024 bytes/)
})

test('a generated password is one that could be chosen, and needs no quoting', () => {
  const passwords = Array.from({ length: 50 }, generatePassword)
  assert.equal(new Set(passwords).size, 50)
  for (const password of passwords) {
    assert.equal(passwordFault(password), undefined)
    assert.match(password, /^[A-Za-z0-9]{24}$/)
  }
})
