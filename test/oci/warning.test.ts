import assert from 'node:assert/strict'
import { test } from 'node:test'
import { warningHeaders } from '../../src/oci/warning.ts'

void test('a warning is 299, no agent, its text quoted, and no date (distribution-spec: Warnings)', () => {
  assert.deepEqual(warningHeaders(['deprecated', 'soon gone']), ['299 - "deprecated"', '299 - "soon gone"'])
})

void test('what would break a header is escaped or replaced (RFC 9110 section 5.6.4)', () => {
  assert.deepEqual(warningHeaders(['a "b" \\ c\r\nX: é']), [String.raw`299 - "a \"b\" \\ c??X: ?"`])
})

void test('all warnings together have at most 4096 bytes (distribution-spec: Warnings)', () => {
  const headers = warningHeaders(['a'.repeat(5000), ...Array.from({ length: 100 }, () => 'b'.repeat(92)), 'c'])
  assert.ok(headers.join('').length <= 4096)
  assert.equal(headers.length, 41)
})
