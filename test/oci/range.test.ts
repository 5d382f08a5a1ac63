import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RegistryError } from '../../src/oci/errors.ts'
import {
  type InclusiveRange,
  MAX_RANGES,
  type WantedRange,
  multipartParts,
  parseContentRange,
  parseRange,
} from '../../src/oci/range.ts'

const SIZE = 2048
const HUGE = '9'.repeat(40)

const single = (start: number, end: number): WantedRange => ({ kind: 'single', range: { start, end } })
const multi = (...pairs: (readonly [number, number])[]): WantedRange => ({
  kind: 'multi',
  ranges: pairs.map(([start, end]) => ({ start, end })),
})
const whole: WantedRange = { kind: 'whole' }

const WANTED: readonly (readonly [string, string | undefined, WantedRange])[] = [
  ['no header', undefined, whole],
  ['a range inside', 'bytes=500-1499', single(500, 1499)],
  ['one byte', 'bytes=0-0', single(0, 0)],
  ['the last byte', 'bytes=2047-2047', single(2047, 2047)],
  ['all bytes by number', 'bytes=0-2047', single(0, 2047)],
  ['an open range', 'bytes=500-', single(500, 2047)],
  ['an open range from the start', 'bytes=0-', single(0, 2047)],
  ['a suffix', 'bytes=-500', single(1548, 2047)],
  ['a suffix longer than the content', 'bytes=-5000', single(0, 2047)],
  ['a suffix past what a double holds', `bytes=-${HUGE}`, single(0, 2047)],
  ['an end past the content', 'bytes=2000-5000', single(2000, 2047)],
  ['an end past what a double holds', `bytes=1-${HUGE}`, single(1, 2047)],
  ['an end past every double', `bytes=1-${'9'.repeat(400)}`, single(1, 2047)],
  ['a unit in another case', 'Bytes=0-1', single(0, 1)],
  ['blanks around', ' bytes=0-1 ', single(0, 1)],
  ['empty list members', 'bytes=,0-1,', single(0, 1)],
  ['leading zeros', 'bytes=0000-0001', single(0, 1)],
  ['two ranges', 'bytes=0-9,20-29', multi([0, 9], [20, 29])],
  ['two ranges with blanks', 'bytes=0-9 , 20-29', multi([0, 9], [20, 29])],
  ['ranges in the order asked for', 'bytes=20-29,0-9,-5', multi([20, 29], [0, 9], [2043, 2047])],
  ['adjacent ranges stay apart', 'bytes=0-9,10-19', multi([0, 9], [10, 19])],
  ['overlapping ranges that are no larger than the content', 'bytes=0-9,5-14', multi([0, 9], [5, 14])],
  ['a range outside is dropped', 'bytes=0-9,5000-6000,20-29', multi([0, 9], [20, 29])],
  ['one range left of two', 'bytes=5000-6000,0-9', single(0, 9)],
  ['as many bytes as there are', 'bytes=0-1023,1024-2047', multi([0, 1023], [1024, 2047])],
  ['more bytes than there are', 'bytes=0-1024,1024-2047', whole],
  ['the whole twice', 'bytes=0-,0-', whole],
  ['another unit', 'items=0-1', whole],
  ['no unit', '0-1', whole],
  ['no equals sign', 'bytes 0-1', whole],
  ['no range', 'bytes=', whole],
  ['only commas', 'bytes=,,,', whole],
  ['a hyphen alone', 'bytes=-', whole],
  ['letters', 'bytes=a-b', whole],
  ['a sign', 'bytes=+1-2', whole],
  ['two hyphens', 'bytes=--5', whole],
  ['a negative start', 'bytes=-1-5', whole],
  ['a fraction', 'bytes=0.5-1', whole],
  ['an exponent', 'bytes=1e1-20', whole],
  ['hexadecimal', 'bytes=0x0-0x1', whole],
  ['digits of another script', 'bytes=٠-١', whole],
  ['one malformed member among good ones', 'bytes=0-1,x,4-5', whole],
  ['NUL', 'bytes=0-1\0', whole],
]

for (const [description, header, wanted] of WANTED) {
  void test(`Range: ${description} (RFC 9110 section 14.2)`, () => {
    assert.deepEqual(parseRange(header, SIZE), wanted)
  })
}

const UNSATISFIABLE: readonly (readonly [string, string, number])[] = [
  ['ends before it starts', 'bytes=500-0', SIZE],
  ['beyond the content', 'bytes=5000-10000', SIZE],
  ['starts at the size', 'bytes=2048-', SIZE],
  ['no suffix', 'bytes=-0', SIZE],
  ['all of several outside', 'bytes=2048-2049,9000-', SIZE],
  ['a start past what a double holds', `bytes=${HUGE}-`, SIZE],
  ['a start and end past every double', `bytes=${'9'.repeat(400)}-${'9'.repeat(400)}`, SIZE],
  ['the first byte of nothing', 'bytes=0-0', 0],
  ['everything of nothing', 'bytes=0-', 0],
  ['the end of nothing', 'bytes=-1', 0],
]

for (const [description, header, size] of UNSATISFIABLE) {
  void test(`Range: 416 where it ${description} (RFC 9110 section 15.5.17)`, () => {
    assert.throws(
      () => parseRange(header, size),
      error =>
        error instanceof RegistryError &&
        error.code === 'RANGE_INVALID' &&
        error.status === 416 &&
        error.headers['Content-Range'] === `bytes */${size}`,
    )
  })
}

void test('1,024 ranges are answered apart, one more with the whole', () => {
  const header = (count: number): string =>
    `bytes=${Array.from({ length: count }, (_, index) => `${index * 2}-${index * 2}`).join(',')}`
  const wanted = parseRange(header(MAX_RANGES), 1_000_000)
  assert.equal(wanted.kind === 'multi' && wanted.ranges.length, MAX_RANGES)
  assert.deepEqual(parseRange(header(MAX_RANGES + 1), 1_000_000), whole)
})

void test('a header made to be slow is read at once', () => {
  const started = performance.now()
  for (const header of [`bytes=${' '.repeat(60_000)}x`, `bytes${' '.repeat(60_000)}`, `bytes=${'0'.repeat(60_000)}x`]) {
    assert.deepEqual(parseRange(header, SIZE), whole)
  }
  assert.ok(performance.now() - started < 1000)
})

void test('whatever the header, a range lies inside the content', () => {
  const numbers = ['', '0', '1', '2047', '2048', '9007199254740991', '9007199254740993', HUGE]
  for (const first of numbers) {
    for (const last of numbers) {
      let wanted: WantedRange
      try {
        wanted = parseRange(`bytes=${first}-${last}`, SIZE)
      } catch (error) {
        assert.ok(error instanceof RegistryError && error.status === 416)
        continue
      }
      if (wanted.kind !== 'single') continue
      const { start, end } = wanted.range
      assert.ok(Number.isSafeInteger(start) && Number.isSafeInteger(end), `${first}-${last}`)
      assert.ok(start >= 0 && end >= start && end < SIZE, `${first}-${last}`)
    }
  }
})

const CHUNKS: readonly (readonly [string, InclusiveRange])[] = [
  ['0-0', { start: 0, end: 0 }],
  ['0-1023', { start: 0, end: 1023 }],
  [' 0-1023 ', { start: 0, end: 1023 }],
  ['bytes 1024-2047', { start: 1024, end: 2047 }],
  ['bytes=1024-2047', { start: 1024, end: 2047 }],
  ['bytes 0-9/10', { start: 0, end: 9 }],
  ['bytes 0-9/*', { start: 0, end: 9 }],
  ['0-9007199254740991', { start: 0, end: Number.MAX_SAFE_INTEGER }],
]

for (const [header, range] of CHUNKS) {
  void test(`Content-Range ${JSON.stringify(header)} is understood: distribution-spec, "Pushing a blob in chunks"`, () => {
    assert.deepEqual(parseContentRange(header), range)
  })
}

for (const header of [
  '',
  '-',
  '0-',
  '-5',
  '5-4',
  'a-b',
  '0-1-2',
  '0 - 1',
  '0-1,2-3',
  '-1-5',
  '+0-1',
  '0.0-1',
  '0x0-1',
  'bytes',
  'bytes */10',
  'items 0-1',
  'bytes  0-1/x',
  '0-9007199254740992',
  '9007199254740992-9007199254740993',
  `0-${HUGE}`,
  '0-1\0',
  '٠-١',
]) {
  void test(`Content-Range ${JSON.stringify(header)} is refused`, () => {
    assert.throws(
      () => parseContentRange(header),
      error => error instanceof RegistryError && error.code === 'BLOB_UPLOAD_INVALID' && error.status === 400,
    )
  })
}

/** A reader of its own, so that the framing is not judged by what wrote it. */
function readMultipart(body: Buffer, boundary: string): { range: string; type: string; content: string }[] {
  const text = body.toString('latin1')
  const pieces = `\r\n${text}`.split(`\r\n--${boundary}`)
  assert.equal(pieces.shift(), '')
  assert.equal(pieces.pop(), '--\r\n')
  return pieces.map(piece => {
    const end = piece.indexOf('\r\n\r\n')
    const headers = new Map(
      piece
        .slice(2, end)
        .split('\r\n')
        .map(line => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 2)] as const),
    )
    return {
      range: headers.get('content-range') ?? '',
      type: headers.get('content-type') ?? '',
      content: piece.slice(end + 4),
    }
  })
}

void test('a multipart answer has one part for each range and the length it says: RFC 9110 section 14.6', () => {
  const content = Buffer.from('0123456789abcdefghij')
  const ranges = [
    { start: 10, end: 12 },
    { start: 0, end: 0 },
    { start: 19, end: 19 },
  ]
  const framing = multipartParts(ranges, content.byteLength, 'application/octet-stream', 'x1')
  assert.equal(framing.heads.length, ranges.length)
  const body = Buffer.concat([
    ...ranges.flatMap(({ start, end }, index) => [
      framing.heads[index] ?? Buffer.alloc(0),
      content.subarray(start, end + 1),
    ]),
    framing.tail,
  ])
  assert.equal(body.byteLength, framing.length)
  assert.deepEqual(readMultipart(body, 'x1'), [
    { range: 'bytes 10-12/20', type: 'application/octet-stream', content: 'abc' },
    { range: 'bytes 0-0/20', type: 'application/octet-stream', content: '0' },
    { range: 'bytes 19-19/20', type: 'application/octet-stream', content: 'j' },
  ])
})
