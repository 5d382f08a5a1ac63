import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Context } from 'koa'
import { originOf } from '../../src/middleware/forwarded.ts'
import { RegistryError } from '../../src/oci/errors.ts'

const contextOf = (host: string): Context => ({ secure: true, host, state: {} }) as unknown as Context

test('a client is answered with the name it used (RFC 9110 section 7.2)', () => {
  for (const host of ['registry.example', 'localhost:5000', '127.0.0.1:5000', '[::1]:5000', 'my_registry-1']) {
    assert.equal(originOf(contextOf(host), undefined), `https://${host}`)
  }
})

test('a Host that is no host is refused with 400 and never reflected (RFC 9112 section 3.2)', () => {
  const hostile = [
    '',
    'a",realm="https://evil.example',
    'user@evil.example',
    'evil.example/path',
    'evil.example?x',
    'evil.example#x',
    'evil.example\\x',
    'a b',
    '[::1',
    'a:port',
    'a'.repeat(300),
  ]
  for (const host of hostile) {
    assert.throws(
      () => originOf(contextOf(host), undefined),
      (error: unknown) => error instanceof RegistryError && error.status === 400,
      host,
    )
  }
})

test('a configured public address stands whatever the Host header says', () => {
  assert.equal(originOf(contextOf('evil.example'), 'https://registry.example'), 'https://registry.example')
})
