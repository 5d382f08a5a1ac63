import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { proxyFor } from '../../src/mirror/proxies.ts'

const HTTP = 'http://plain.example:3128'
const HTTPS = 'http://tls.example:3128'

void suite('which proxy a URL is asked through: HTTP_PROXY, HTTPS_PROXY and NO_PROXY as curl and Go take them', () => {
  const table: readonly (readonly [string, string, string | undefined])[] = [
    ['https://registry.example/v2/', '', HTTPS],
    ['http://registry.example/v2/', '', HTTP],
    ['https://registry.example/v2/', '*', undefined],
    ['https://registry.example/v2/', 'registry.example', undefined],
    ['https://registry.example/v2/', 'Registry.Example', undefined],
    ['https://a.registry.example/v2/', 'registry.example', undefined],
    ['https://a.registry.example/v2/', '.registry.example', undefined],
    ['https://a.registry.example/v2/', '*.registry.example', undefined],
    ['https://registry.example/v2/', '.registry.example', undefined],
    ['https://evilregistry.example/v2/', 'registry.example', HTTPS],
    ['https://evilregistry.example/v2/', '.registry.example', HTTPS],
    ['https://registry.example.evil/v2/', 'registry.example', HTTPS],
    ['https://registry.example/v2/', 'registry.example:443', undefined],
    ['http://registry.example/v2/', 'registry.example:80', undefined],
    ['http://registry.example/v2/', 'registry.example:443', HTTP],
    ['https://registry.example:5000/v2/', 'registry.example:5000', undefined],
    ['https://registry.example:5001/v2/', 'registry.example:5000', HTTPS],
    ['https://10.1.2.3/v2/', '10.1.2.3', undefined],
    ['https://10.1.2.3:5000/v2/', '10.1.2.3:5000', undefined],
    ['https://10.1.2.3/v2/', '10.0.0.0/8', undefined],
    ['https://11.1.2.3/v2/', '10.0.0.0/8', HTTPS],
    ['https://10.1.2.3/v2/', '10.0.0.0/99', HTTPS],
    ['https://10.1.2.3/v2/', '2.3', HTTPS],
    ['https://[fd00::1]/v2/', 'fd00::/8', undefined],
    ['https://[fd00::1]/v2/', 'fd00::1', undefined],
    ['https://[fd00::1]:5000/v2/', '[fd00::1]:5000', undefined],
    ['https://[fd00::1]:5001/v2/', '[fd00::1]:5000', HTTPS],
    ['https://[fd00::1]/v2/', '10.0.0.0/8', HTTPS],
    ['https://registry.example/v2/', '.', HTTPS],
  ]
  for (const [url, without, expected] of table) {
    void test(`${url} with NO_PROXY=${without}: ${expected ?? 'directly'}`, () => {
      const proxies = { http: HTTP, https: HTTPS, without: without === '' ? [] : [without] }
      assert.equal(proxyFor(new URL(url), proxies), expected)
    })
  }

  void test('a proxy for one scheme is none for the other', () => {
    assert.equal(proxyFor(new URL('https://registry.example'), { http: HTTP, without: [] }), undefined)
    assert.equal(proxyFor(new URL('http://registry.example'), { https: HTTPS, without: [] }), undefined)
  })
})
