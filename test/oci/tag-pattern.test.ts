import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { tagMatcher, tagPatternFault } from '../../src/oci/tag-pattern.ts'

const LONGEST_TAG = 'a'.repeat(128)

void suite('patterns of tags', () => {
  for (const [pattern, fits, misses] of [
    ['v*', ['v', 'v1.0'], ['V1', 'xv1', 'latest']],
    ['v?.0', ['v1.0'], ['v1x0', 'v10.0', 'v.0']],
    ['release-*-rc', ['release-1-rc', 'release--rc'], ['release-rc', 'release-1-rc2']],
    ['*', ['latest', LONGEST_TAG], []],
    ['/v\\d+\\.\\d+\\.\\d+/', ['v1.2.3', 'v10.20.30'], ['v1.2', 'v1.2.3-rc', 'xv1.2.3']],
    ['/stable|lts/', ['stable', 'lts'], ['stable-1', 'notlts']],
  ] as const) {
    test(`${pattern} matches whole tags`, () => {
      assert.equal(tagPatternFault(pattern), undefined)
      const matches = tagMatcher(pattern)
      assert.deepEqual(
        fits.filter(tag => !matches(tag)),
        [],
      )
      assert.deepEqual(misses.filter(matches), [])
    })
  }

  for (const pattern of [
    '',
    'a/b',
    'a b',
    '//',
    '/(/',
    '/\\1/',
    '/(?=a)/',
    `/${'a'.repeat(200)}/`,
    '/\\p{L}{900}/',
    '/((a{99}){99})/',
  ]) {
    test(`${pattern.slice(0, 30)} is refused with what is wrong`, () => {
      assert.match(tagPatternFault(pattern) ?? '', /pattern of tags|too large/)
    })
  }

  // CWE-1333: what makes a backtracking engine try every way to match.
  for (const pattern of ['/(a+)+b/', '/(a|aa)+b/', '/(a*)*(a*)*(a*)*b/', '/(?:a?){90}a{90}b/']) {
    test(`${pattern} is answered at once for a tag that almost fits (CWE-1333)`, () => {
      assert.equal(tagPatternFault(pattern), undefined)
      assert.equal(tagMatcher(pattern)(LONGEST_TAG), false)
    })
  }
})
