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
    // However an address is written, it is nobody's domain.
    ['https://2130706433/blob', 'content', false],
    ['https://0x7f.1/blob', 'content', false],
    ['https://[::ffff:169.254.169.254]/latest', 'content', false],
    ['https://[64:ff9b::a9fe:a9fe]/latest', 'content', false],
    ['https://10.0.0.1/token', 'token', false],
    ['https://localhost/token', 'token', false],
    // From HTTPS down to HTTP, also at home.
    ['http://registry-1.docker.io/blob', 'content', false],
    ['http://cdn.example/blob', 'content', false],
    // What looks like the upstream's domain and is not.
    ['https://docker.io.partner.test/token', 'token', false],
    ['https://registry-1.docker.io@evil.example/token', 'token', false],
    ['https://evil.example/registry-1.docker.io', 'token', false],
    ['https://evil.example#registry-1.docker.io', 'token', false],
    // The root's dot is no other domain (RFC 1034 section 3.1).
    ['https://auth.docker.io./token', 'token', true],
    ['https://io/token', 'token', false],
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

  void test('where a domain is a public suffix, its token service has to be named (distribution/distribution#4947)', () => {
    const upstream = new URL('https://registry.freedesktop.org')
    const realm = new URL('https://gitlab.freedesktop.org/jwt/auth')
    assert.equal(isTrusted({ upstream, hosts: [], contentHosts: [] }, realm, 'token'), false)
    assert.equal(isTrusted({ upstream, hosts: ['gitlab.freedesktop.org'], contentHosts: [] }, realm, 'token'), true)
  })

  void test('an address has no domain: only itself is trusted', () => {
    const trust = { upstream: new URL('http://10.0.0.5:5000'), hosts: [], contentHosts: [] }
    assert.equal(isTrusted(trust, new URL('http://10.0.0.5:5001/token'), 'token'), true)
    assert.equal(isTrusted(trust, new URL('http://10.0.0.6:5000/token'), 'token'), false)
  })
})
