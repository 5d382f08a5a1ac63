import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RegistryError } from '../../src/oci/errors.ts'
import { MAX_NAME_LENGTH, parseName, parseReference, parseTag, tryParseName } from '../../src/oci/name.ts'

const HEX = 'a'.repeat(64)

function refused(code: string): (error: unknown) => boolean {
  return error => error instanceof RegistryError && error.code === code && error.status === 400
}

const NAMES = [
  'a',
  '0',
  'library/alpine',
  'a.b',
  'a_b',
  'a__b',
  'a-b',
  'a---b',
  'a/b/c/d/e/f',
  'v2',
  'v2/blobs/manifests',
  'blobs/uploads',
  'tags/list',
  'a.b_c__d--e/0',
  'a'.repeat(MAX_NAME_LENGTH),
]

for (const name of NAMES) {
  void test(`a repository may be named ${name.slice(0, 40)}: distribution-spec, "Pulling manifests"`, () => {
    assert.equal(parseName(name), name)
  })
}

const NOT_NAMES: readonly (readonly [string, string])[] = [
  ['nothing', ''],
  ['upper case', 'Library/alpine'],
  ['a leading slash', '/a'],
  ['a trailing slash', 'a/'],
  ['two slashes', 'a//b'],
  ['a leading dot', '.a'],
  ['a trailing dot', 'a.'],
  ['two dots', 'a..b'],
  ['a parent directory', '../a'],
  ['a parent directory inside', 'a/../b'],
  ['this directory', 'a/./b'],
  ['three underscores', 'a___b'],
  ['a leading underscore', '_a'],
  ['a trailing hyphen', 'a-'],
  ['a leading hyphen in a later part', 'a/-b'],
  ['mixed separators', 'a._b'],
  ['a colon', 'a:b'],
  ['an at', 'a@b'],
  ['a space', 'a b'],
  ['a backslash', String.raw`a\b`],
  ['a percent', 'a%2fb'],
  ['NUL', 'a\0b'],
  ['a newline at the end', 'a\n'],
  ['a newline inside', 'a\nb'],
  ['a letter of another script', 'аlpine'],
  ['a ligature', 'ﬁle'],
  ['a character more than can be pulled', 'a'.repeat(MAX_NAME_LENGTH + 1)],
]

for (const [description, name] of NOT_NAMES) {
  void test(`a repository name is refused: ${description}`, () => {
    assert.equal(tryParseName(name), undefined)
    assert.throws(() => parseName(name), refused('NAME_INVALID'))
  })
}

void test('a name made to make a backtracking matcher slow is refused at once', () => {
  const started = performance.now()
  for (const part of ['a-', 'a_', 'a__', 'a/', 'a.', 'a']) {
    assert.equal(tryParseName(`${part.repeat(Math.floor(250 / part.length))}!`), undefined)
    assert.equal(tryParseName(`${part.repeat(100_000)}!`), undefined)
  }
  assert.ok(performance.now() - started < 500)
})

void test('tags are up to 128 characters: distribution-spec, "Pulling manifests"', () => {
  for (const tag of ['a', '_', '0', 'V1.0-RC_1', 'latest', 'sha256-abc.sig', 'a'.repeat(128)]) {
    assert.equal(parseTag(tag), tag)
  }
  for (const tag of ['', '.a', '-a', 'a'.repeat(129), 'a b', 'a/b', 'a:b', 'a+b', 'a\n', 'a\0', 'ä', 'a,b']) {
    assert.throws(() => parseTag(tag), refused('TAG_INVALID'), tag)
  }
})

void test('a reference with a colon is a digest, any other a tag', () => {
  assert.deepEqual(parseReference(`sha256:${HEX}`), { digest: `sha256:${HEX}` })
  assert.deepEqual(parseReference(`sha256-${HEX}`), { tag: `sha256-${HEX}` })
  assert.deepEqual(parseReference('latest'), { tag: 'latest' })
  assert.throws(() => parseReference('sha256:baddigeststring'), refused('DIGEST_INVALID'))
  assert.throws(() => parseReference('a:b'), refused('DIGEST_INVALID'))
  assert.throws(() => parseReference(''), refused('TAG_INVALID'))
})
