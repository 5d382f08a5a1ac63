import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { test } from 'node:test'
import { covers, matchesPattern, patternFault, patternRegex } from '../../src/oci/repository-pattern.ts'

test('a pattern names what its components say, and no more', () => {
  const rows: readonly (readonly [string, string, boolean])[] = [
    ['team/app', 'team/app', true],
    ['team/app', 'team/apple', false],
    ['team/*', 'team/app', true],
    ['team/*', 'team/app/deep', false],
    ['team/*', 'team', false],
    ['team/**', 'team/app/deep', true],
    ['team/**', 'team', false],
    ['team/**', 'team-b/app', false],
    ['**', 'a', true],
    ['**', 'a/b/c', true],
    ['*', 'a/b', false],
    ['*/web', 'a/web', true],
    ['**/web', 'a/b/web', true],
    ['**/web', 'web', false],
    ['a/**/z', 'a/b/c/z', true],
    ['a/**/z', 'a/z', false],
    ['app-*', 'app-1', true],
    ['app-*', 'app', false],
    ['a.b', 'axb', false],
  ]
  for (const [pattern, name, matches] of rows) {
    assert.equal(matchesPattern(pattern, name), matches, `${pattern} and ${name}`)
  }
})

test('a pattern covers another only where it names all that the other can name', () => {
  const rows: readonly (readonly [string, string, boolean])[] = [
    ['**', '**', true],
    ['**', 'team/**', true],
    ['team/**', '**', false],
    ['team/**', 'team/*', true],
    ['team/*', 'team/**', false],
    ['team/*', 'team/a*', true],
    ['team/a*', 'team/*', false],
    ['team/a*', 'team/ab*', true],
    ['*', '**', false],
    ['team/**', 'team', false],
    ['a/**/z', 'a/**/z', true],
    ['**/z', 'a/**/z', true],
  ]
  for (const [outer, inner, isCovered] of rows) {
    assert.equal(covers(outer, inner), isCovered, `${outer} covers ${inner}`)
  }
})

test('what is no pattern is refused with what a pattern is', () => {
  for (const pattern of ['', '/', 'a//b', 'a/', 'A', 'a***', 'a/b**', 'a?', 'a b', 'a|b', '^a', 'a'.repeat(256)]) {
    assert.notEqual(patternFault(pattern), undefined, pattern)
  }
  for (const pattern of ['a', '**', '*', 'a/**/b', 'app-*', '*.x']) assert.equal(patternFault(pattern), undefined)
})

test('the pattern and its regular expression name the same, and covering never widens, on random names', () => {
  const seed = randomInt(2 ** 31)
  let state = seed
  const below = (limit: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fff_ffff
    return Math.floor((state / 2 ** 31) * limit)
  }
  const pick = (from: readonly string[]): string => from[below(from.length)] ?? ''
  const path = (parts: readonly string[]): string => Array.from({ length: 1 + below(4) }, () => pick(parts)).join('/')
  const name = (): string => path(['a', 'b', 'ab', 'a.b', 'a-b', 'axb'])
  const pattern = (): string => path(['a', 'b', '*', '**', 'a*', '*b', 'a.b', 'a*b'])
  const names = Array.from({ length: 60 }, name)
  for (let round = 0; round < 400; round += 1) {
    const [outer, inner] = [pattern(), pattern()]
    const regex = new RegExp(patternRegex(outer))
    const isCovered = covers(outer, inner)
    for (const one of names) {
      assert.equal(regex.test(one), matchesPattern(outer, one), `seed ${seed}: ${outer} and ${one}`)
      if (isCovered && matchesPattern(inner, one)) {
        assert.ok(matchesPattern(outer, one), `seed ${seed}: ${outer} is said to cover ${inner}, but not ${one}`)
      }
    }
  }
})

test('a pattern made to be slow is answered at once (OWASP: regular expression denial of service)', () => {
  assert.equal(matchesPattern(`${'**/'.repeat(60)}z`, Array.from({ length: 120 }, () => 'a').join('/')), false)
  assert.equal(matchesPattern('*a'.repeat(120), 'a'.repeat(250) + 'b'), false)
})
