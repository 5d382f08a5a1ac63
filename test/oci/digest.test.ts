import assert from 'node:assert/strict'
import { test } from 'node:test'
import { algorithmOf, digestOf, isDigestAlgorithm, parseDigest, tryParseDigest } from '../../src/oci/digest.ts'
import { RegistryError } from '../../src/oci/errors.ts'

const HEX256 = '0123456789abcdef'.repeat(4)
const HEX512 = '0123456789abcdef'.repeat(8)

void test('sha256 and sha512 digests are taken as they are: image-spec descriptor, "Registered Algorithms"', () => {
  assert.equal(parseDigest(`sha256:${HEX256}`), `sha256:${HEX256}`)
  assert.equal(parseDigest(`sha512:${HEX512}`), `sha512:${HEX512}`)
  assert.equal(algorithmOf(parseDigest(`sha256:${HEX256}`)), 'sha256')
  assert.equal(algorithmOf(parseDigest(`sha512:${HEX512}`)), 'sha512')
  assert.equal(digestOf('sha512', HEX512), `sha512:${HEX512}`)
})

void test('only registered algorithms are algorithms, not what every object has', () => {
  for (const name of ['sha256', 'sha512']) assert.ok(isDigestAlgorithm(name))
  for (const name of ['', 'SHA256', 'sha384', 'md5', 'blake3', 'constructor', '__proto__', 'toString']) {
    assert.ok(!isDigestAlgorithm(name), name)
  }
})

const MALFORMED: readonly (readonly [string, string])[] = [
  ['nothing', ''],
  ['a colon alone', ':'],
  ['no colon', HEX256],
  ['no algorithm', `:${HEX256}`],
  ['no hex', 'sha256:'],
  ['one digit short', `sha256:${HEX256.slice(1)}`],
  ['one digit long', `sha256:${HEX256}0`],
  ['sha512 with the length of sha256', `sha512:${HEX256}`],
  ['sha256 with the length of sha512', `sha256:${HEX512}`],
  ['upper-case hex', `sha256:${HEX256.toUpperCase()}`],
  ['upper-case algorithm', `SHA256:${HEX256}`],
  ['no hex at all', `sha256:${'g'.repeat(64)}`],
  ['trailing newline', `sha256:${HEX256}\n`],
  ['leading space', ` sha256:${HEX256}`],
  ['trailing space', `sha256:${HEX256} `],
  ['two colons', `sha256::${HEX256}`],
  ['a second digest', `sha256:${HEX256},sha256:${HEX256}`],
  ['NUL inside', `sha256:${HEX256.slice(1)}\0`],
  ['full-width digits', `sha256:${'０'.repeat(64)}`],
  ['another algorithm', `sha384:${'0'.repeat(96)}`],
  ['a compound algorithm', `sha256+b64:${HEX256}`],
  ['the name of a property every object has', `constructor:${HEX256}`],
  ['the name of the prototype', `__proto__:${HEX256}`],
  ['the word of the conformance suite', 'sha256:baddigeststring'],
]

for (const [description, text] of MALFORMED) {
  void test(`a digest is refused: ${description}`, () => {
    assert.equal(tryParseDigest(text), undefined)
    assert.throws(
      () => parseDigest(text),
      error => error instanceof RegistryError && error.code === 'DIGEST_INVALID' && error.status === 400,
    )
  })
}

void test('a refusal repeats no more than the beginning of a huge digest', () => {
  assert.throws(
    () => parseDigest(`sha256:${'a'.repeat(1_000_000)}`),
    error => error instanceof RegistryError && JSON.stringify(error.entries).length < 1000,
  )
})

void test('a hash of the wrong length makes no digest', () => {
  assert.throws(() => digestOf('sha512', HEX256), RegistryError)
})
