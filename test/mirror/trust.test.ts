import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { isTrusted } from '../../src/mirror/trust.ts'

void suite('where an upstream may send us: CVE-2026-33540', () => {
  const hub = {
    upstream: new URL('https://registry-1.docker.io'),
    hosts: ['*.partner.example'],
    contentHosts: ['cdn.example'],
  }
  const table: readonly (readonly [string, 'token' | 'content', boolean])[] = [
    ['https://registry-1.docker.io/token', 'token', true],
    ['https://auth.docker.io/token', 'token', true],
    ['https://docker.io/token', 'token', true],
    ['https://a.partner.example/token', 'token', true],
    ['https://partner.example/token', 'token', false],
    ['https://evilpartner.example/token', 'token', false],
    ['https://auth.docker.io.evil.example/token', 'token', false],
    ['https://evildocker.io/token', 'token', false],
    ['http://auth.docker.io/token', 'token', false],
    ['https://user:pass@auth.docker.io/token', 'token', false],
    ['https://cdn.example/token', 'token', false],
    ['https://cdn.example/blob', 'content', true],
    ['https://CDN.example:8443/blob', 'content', true],
    ['https://169.254.169.254/latest', 'content', false],
    ['https://127.0.0.1/blob', 'content', false],
    ['https://[::1]/blob', 'content', false],
    ['file:///etc/passwd', 'content', false],
    ['ftp://registry-1.docker.io/blob', 'content', false],
  ]
  for (const [url, purpose, expected] of table) {
    void test(`${url} for ${purpose}: ${expected ? 'yes' : 'no'}`, () => {
      assert.equal(isTrusted(hub, new URL(url), purpose), expected)
    })
  }

  void test('customers of one hosting company are strangers to each other', () => {
    const trust = { upstream: new URL('https://mine.github.io'), hosts: [], contentHosts: [] }
    assert.equal(isTrusted(trust, new URL('https://yours.github.io/token'), 'token'), false)
  })

  void test('an address has no domain: only itself is trusted', () => {
    const trust = { upstream: new URL('http://10.0.0.5:5000'), hosts: [], contentHosts: [] }
    assert.equal(isTrusted(trust, new URL('http://10.0.0.5:5001/token'), 'token'), true)
    assert.equal(isTrusted(trust, new URL('http://10.0.0.6:5000/token'), 'token'), false)
  })
})
