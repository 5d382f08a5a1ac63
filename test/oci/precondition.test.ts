import assert from 'node:assert/strict'
import { test } from 'node:test'
import { noneMatches, rangeStands } from '../../src/oci/precondition.ts'

const DIGEST = `sha256:${'a'.repeat(64)}`

void test('If-None-Match compares weakly: quoted, weak, bare, in a list, and * (RFC 9110 section 13.1.2)', () => {
  for (const header of [`"${DIGEST}"`, `W/"${DIGEST}"`, DIGEST, '*', `"x" , W/"${DIGEST}"`, `,"${DIGEST}",`]) {
    assert.ok(noneMatches(header, DIGEST), header)
  }
  for (const header of ['', '"x"', '"*"', `"${DIGEST}`, `""${DIGEST}""`, `w/"${DIGEST}"`, `x${DIGEST}`]) {
    assert.ok(!noneMatches(header, DIGEST), header)
  }
})

void test('If-Range compares strongly, and no date counts (RFC 9110 section 13.1.5)', () => {
  for (const header of ['', `"${DIGEST}"`, ` "${DIGEST}" `]) assert.ok(rangeStands(header, DIGEST), header)
  for (const header of [`W/"${DIGEST}"`, DIGEST, '*', '"x"', `"x","${DIGEST}"`, 'Wed, 21 Oct 2015 07:28:00 GMT']) {
    assert.ok(!rangeStands(header, DIGEST), header)
  }
})
