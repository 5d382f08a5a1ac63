import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ERROR_CODES, type ErrorCode, RegistryError, errorBody } from '../../src/oci/errors.ts'

/** distribution-spec, "Error Codes", table. */
const SPECIFIED: readonly ErrorCode[] = [
  'BLOB_UNKNOWN',
  'BLOB_UPLOAD_INVALID',
  'BLOB_UPLOAD_UNKNOWN',
  'DIGEST_INVALID',
  'MANIFEST_BLOB_UNKNOWN',
  'MANIFEST_INVALID',
  'MANIFEST_UNKNOWN',
  'NAME_INVALID',
  'NAME_UNKNOWN',
  'SIZE_INVALID',
  'UNAUTHORIZED',
  'DENIED',
  'UNSUPPORTED',
  'TOOMANYREQUESTS',
]

void test('every code of the specification is known, and each is upper case with underscores', () => {
  for (const code of SPECIFIED) assert.ok(Object.hasOwn(ERROR_CODES, code), code)
  for (const [code, { status, message }] of Object.entries(ERROR_CODES)) {
    assert.match(code, /^[A-Z][A-Z_]*$/)
    assert.ok(status >= 400 && status < 600, code)
    assert.notEqual(message, '')
  }
})

void test('an error takes status and message from the table', () => {
  const error = new RegistryError('BLOB_UNKNOWN')
  assert.equal(error.status, 404)
  assert.equal(error.message, ERROR_CODES.BLOB_UNKNOWN.message)
  assert.deepEqual(error.headers, {})
  assert.deepEqual(error.entries, [{ code: 'BLOB_UNKNOWN', message: ERROR_CODES.BLOB_UNKNOWN.message }])
})

void test('a thrower may replace message and status, add headers and detail, and tell the log more', () => {
  const cause = new Error('disk')
  const error = new RegistryError('MANIFEST_INVALID', {
    message: 'too large',
    status: 413,
    detail: { limit: 1 },
    headers: { Connection: 'close' },
    cause,
  })
  assert.equal(error.status, 413)
  assert.equal(error.cause, cause)
  assert.deepEqual(error.headers, { Connection: 'close' })
  assert.deepEqual(error.entries, [{ code: 'MANIFEST_INVALID', message: 'too large', detail: { limit: 1 } }])
})

void test('several things wrong are several entries of one code', () => {
  const error = new RegistryError('MANIFEST_BLOB_UNKNOWN', {
    entries: [{ message: 'one', detail: { digest: 'a' } }, { message: 'two' }],
  })
  assert.deepEqual(JSON.parse(errorBody(error.entries)), {
    errors: [
      { code: 'MANIFEST_BLOB_UNKNOWN', message: 'one', detail: { digest: 'a' } },
      { code: 'MANIFEST_BLOB_UNKNOWN', message: 'two' },
    ],
  })
})

void test('the body has the errors array and nothing beside it: distribution-spec, "Error Codes"', () => {
  const body: unknown = JSON.parse(errorBody(new RegistryError('DENIED', { cause: new Error('secret') }).entries))
  assert.deepEqual(body, { errors: [{ code: 'DENIED', message: ERROR_CODES.DENIED.message }] })
})
