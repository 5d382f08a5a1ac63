import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RegistryError } from '../../src/oci/errors.ts'
import { nextLink, parsePage } from '../../src/oci/pagination.ts'

void test('a request without n or last names neither: distribution-spec, "Listing Tags"', () => {
  assert.deepEqual(parsePage({}, 100), { n: undefined, last: undefined })
  assert.deepEqual(parsePage({ last: 'v1' }, 100), { n: undefined, last: 'v1' })
})

const COUNTS: readonly (readonly [string, number])[] = [
  ['0', 0],
  ['1', 1],
  ['007', 7],
  ['100', 100],
  ['101', 100],
  ['4294967296', 100],
  ['9007199254740993', 100],
  ['9'.repeat(400), 100],
]

for (const [text, n] of COUNTS) {
  void test(`n=${text.slice(0, 30)} is ${n} where 100 is the most`, () => {
    assert.equal(parsePage({ n: text }, 100).n, n)
  })
}

for (const text of [
  '',
  ' ',
  '-1',
  '-0',
  '+1',
  ' 1',
  '1 ',
  '1.0',
  '1e3',
  '0x10',
  'abc',
  'NaN',
  'Infinity',
  '1\n',
  '١',
  '1,2',
]) {
  void test(`n=${JSON.stringify(text)} is refused`, () => {
    assert.throws(
      () => parsePage({ n: text }, 100),
      error => error instanceof RegistryError && error.code === 'PAGINATION_NUMBER_INVALID' && error.status === 400,
    )
  })
}

void test('of repeated parameters the last one counts', () => {
  assert.deepEqual(parsePage({ n: ['5', '6'], last: ['a', 'b'] }, 100), { n: 6, last: 'b' })
  assert.throws(() => parsePage({ n: ['5', 'x'] }, 100), RegistryError)
})

void test('last may be anything, also what is no tag', () => {
  for (const last of ['', '../..', 'a'.repeat(10_000), 'ä"<>;,']) assert.equal(parsePage({ last }, 1).last, last)
})

void test('last is cut at NUL, which changes no answer', () => {
  assert.equal(parsePage({ last: 'a\0b' }, 1).last, 'a')
  assert.equal(parsePage({ last: '\0' }, 1).last, '')
})

void test('a next link is one entry that cannot be split: RFC 8288 section 3', () => {
  const last = 'a;b,c>d"e f&g=h#i\r\nX: y'
  const link = nextLink('/v2/a/tags/list', { n: '2', last })
  const [, target = ''] = /^<([^<>;,"\s]+)>; rel="next"$/.exec(link) ?? []
  const url = new URL(target, 'http://registry.example')
  assert.equal(url.pathname, '/v2/a/tags/list')
  assert.equal(url.searchParams.get('n'), '2')
  assert.equal(url.searchParams.get('last'), last)
})

void test('a filter given several times is in the link several times', () => {
  const link = nextLink('/v2/a/referrers/x', { artifactType: ['a/b+c', 'd/e'], last: 'z' })
  const url = new URL(/^<(.*)>; rel="next"$/.exec(link)?.[1] ?? '', 'http://registry.example')
  assert.deepEqual(url.searchParams.getAll('artifactType'), ['a/b+c', 'd/e'])
})

void test('the link is relative, so that it holds behind every proxy', () => {
  assert.ok(nextLink('/v2/_catalog', { last: 'a' }).startsWith('</v2/_catalog?'))
})
