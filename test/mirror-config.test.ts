import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { ConfigError, loadConfig } from '../src/config.ts'
import type { MirrorConfig } from '../src/mirror-config.ts'

const HUB = 'https://registry-1.docker.io'

function load(upstreams: unknown, env: Record<string, string> = {}): readonly MirrorConfig[] {
  return loadConfig({ ...env, BERTH_MIRROR_UPSTREAMS: JSON.stringify(upstreams) }, '/').mirror.upstreams
}

function faultOf(upstreams: unknown, env: Record<string, string> = {}): string {
  try {
    load(upstreams, env)
  } catch (error) {
    assert.ok(error instanceof ConfigError)
    assert.equal(error.faults.length, 1, JSON.stringify(error.faults))
    return `${error.faults[0]?.path}: ${error.faults[0]?.message}`
  }
  return assert.fail('there is no fault')
}

void suite('what clients call an upstream', () => {
  void test('namespaces and hosts are the same in capitals (RFC 4343)', () => {
    assert.deepEqual(load({ a: { url: HUB, namespaces: ['Upstream.Example'] } })[0]?.namespaces, ['upstream.example'])
    assert.match(
      faultOf({ a: { url: HUB, namespaces: ['x.example'] }, b: { url: HUB, namespaces: ['X.Example'] } }),
      /x\.example would be among the namespaces of a and b/,
    )
    assert.match(
      faultOf({ a: { url: HUB, hosts: ['x.example'] }, b: { url: 'https://b.example', hosts: ['X.example'] } }),
      /x\.example would be among the hosts of a and b/,
    )
  })

  void test('two mirrors of one registry cannot both be what its name means: the fault says what to set', () => {
    assert.match(
      faultOf({ hub: { url: HUB }, team: { url: HUB, username: 'team', password: 'x' } }),
      /docker\.io would be among the namespaces of hub and team: set namespaces of one of them .*\[\]/,
    )
    const [hub, team] = load({ hub: { url: HUB }, team: { url: HUB, namespaces: [] } })
    assert.deepEqual([hub?.namespaces, team?.namespaces], [['docker.io'], []])
  })
})

void suite('the proxies of a mirror: HTTP_PROXY, HTTPS_PROXY, NO_PROXY', () => {
  void test('each scheme has its own, in capitals or not, and without a scheme a proxy speaks HTTP', () => {
    const env = { HTTPS_PROXY: 'http://user:secret@tls.example:3128', http_proxy: 'plain.example:8080' }
    assert.deepEqual(load({ hub: { url: HUB } }, { ...env, no_proxy: 'a.example, b.example:5000' })[0]?.proxies, {
      http: 'http://plain.example:8080/',
      https: 'http://user:secret@tls.example:3128/',
      without: ['a.example', 'b.example:5000'],
    })
  })

  void test('the one that is set for an upstream is for everything, whatever the environment says', () => {
    const [hub] = load({ hub: { url: HUB, proxy: 'http://own.example' } }, { HTTPS_PROXY: 'x.example', NO_PROXY: '*' })
    assert.deepEqual(hub?.proxies, { http: 'http://own.example', https: 'http://own.example', without: [] })
  })

  for (const [name, value] of [
    ['HTTPS_PROXY', 'http://'],
    ['http_proxy', 'socks5://proxy.example'],
    ['HTTPS_PROXY', 'http://proxy.example:port'],
  ] as const) {
    void test(`${name}=${value} is a fault of the settings, and none where nothing is mirrored`, () => {
      assert.match(faultOf({ hub: { url: HUB } }, { [name]: value }), new RegExp(`^${name}: must be the URL`))
      assert.deepEqual(loadConfig({ [name]: value }, '/').mirror.upstreams, [])
    })
  }

  for (const settings of [{ url: 'registry.example' }, { url: HUB, proxy: 'proxy.example' }]) {
    void test(`${JSON.stringify(settings)} is a fault of the settings`, () => {
      assert.match(faultOf({ hub: settings }), /mirror\.upstreams.*must be a URL/)
    })
  }
})
