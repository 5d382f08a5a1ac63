import assert from 'node:assert/strict'
import { test } from 'node:test'
import { challengeHeader, parseAuthorization } from '../../src/auth/challenge.ts'

const basic = (text: string): string => `Basic ${Buffer.from(text).toString('base64')}`

test('a challenge is one line with all values quoted, and error only where it is given (RFC 6750 section 3)', () => {
  const challenge = { realm: 'https://host/token', service: 'svc', scope: 'repository:a:pull,push' }
  assert.equal(
    challengeHeader(challenge),
    'Bearer realm="https://host/token",service="svc",scope="repository:a:pull,push"',
  )
  assert.equal(challengeHeader({ ...challenge, scope: '' }), 'Bearer realm="https://host/token",service="svc"')
  assert.match(challengeHeader({ ...challenge, error: 'invalid_token' }), /,error="invalid_token"$/)
})

test('a description stands beside an error alone, in the characters that it may have (RFC 6750 section 3)', () => {
  const challenge = { realm: 'https://host/token', service: 'svc', scope: '', description: 'mü"ller\\ may not\r\n' }
  assert.equal(challengeHeader(challenge), 'Bearer realm="https://host/token",service="svc"')
  assert.match(
    challengeHeader({ ...challenge, error: 'insufficient_scope' }),
    /,error="insufficient_scope",error_description="m\?'ller\? may not\?\?"$/,
  )
})

test('Basic credentials are UTF-8 and the name ends at the first colon (RFC 7617 section 2)', () => {
  assert.deepEqual(parseAuthorization(basic('alice:a:b')), { kind: 'basic', name: 'alice', password: 'a:b' })
  assert.deepEqual(parseAuthorization(basic('änne:pässwörd')), { kind: 'basic', name: 'änne', password: 'pässwörd' })
  assert.deepEqual(parseAuthorization(basic('alice:')), { kind: 'basic', name: 'alice', password: '' })
})

test('the scheme is read in any case (RFC 9110 section 11.1)', () => {
  assert.deepEqual(parseAuthorization('bEARER abc'), { kind: 'bearer', token: 'abc' })
  assert.equal(parseAuthorization(basic('a:b').replace('Basic', 'BASIC')).kind, 'basic')
})

test('an empty name and password are nobody (containers/image sends Og==)', () => {
  assert.deepEqual(parseAuthorization('Basic Og=='), { kind: 'none' })
  assert.deepEqual(parseAuthorization(''), { kind: 'none' })
})

test('what cannot be read is not taken for nobody', () => {
  for (const header of [
    'Basic',
    'Basic ',
    'Basic !!!!',
    'Basic YWJj',
    'Bearer',
    'Bearer a b',
    'Negotiate abc',
    'abc',
    basic('a\0b:c'),
    `Bearer ${'a'.repeat(49_152 - 'Bearer '.length + 1)}`,
  ]) {
    assert.deepEqual(parseAuthorization(header), { kind: 'unreadable' }, header.slice(0, 30))
  }
})
