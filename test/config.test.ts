import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { ConfigError, loadConfig } from '../src/config.ts'
import type { ConfigFault } from '../src/config-sources.ts'

const work = mkdtempSync(join(tmpdir(), 'berth-test-config-'))
after(() => rmSync(work, { recursive: true }))

function file(name: string, content: string): string {
  const path = join(work, name)
  writeFileSync(path, content)
  return path
}

function faultsOf(env: Record<string, string>): readonly ConfigFault[] {
  try {
    loadConfig(env, work)
  } catch (error) {
    assert.ok(error instanceof ConfigError)
    return error.faults
  }
  return []
}

function messageOf(env: Record<string, string>): string {
  const faults = faultsOf(env)
  assert.equal(faults.length, 1, JSON.stringify(faults))
  return `${faults[0]?.path}: ${faults[0]?.message}`
}

void describe('where settings come from', () => {
  void it('without any, the registry is for this machine and keeps its data in ./data', () => {
    const config = loadConfig({}, work)

    assert.equal(config.http.host, '127.0.0.1')
    assert.equal(config.http.port, 5000)
    assert.equal(config.data.dir, join(work, 'data'))
    assert.equal(config.database.url, undefined)
  })

  void it('the environment is stronger than the file, the file stronger than the defaults', () => {
    const BERTH_CONFIG = file('both.yaml', 'http:\n  port: 6000\n  idleTimeout: 30s\n')
    const { http } = loadConfig({ BERTH_CONFIG, BERTH_HTTP_PORT: '7000' }, work)

    assert.deepEqual([http.port, http.idleTimeoutMs, http.shutdownTimeoutMs], [7000, 30_000, 30_000])
  })

  void it('an empty variable counts as not set, as compose files and charts pass on what they were not given', () => {
    const BERTH_CONFIG = file('empty.yaml', 'http: { port: 6000 }\n')
    const config = loadConfig({ BERTH_CONFIG, BERTH_HTTP_PORT: '', BERTH_HTTP_HOST: '', BERTH_UNKNOWN: '' }, work)

    assert.deepEqual([config.http.port, config.http.host], [6000, '127.0.0.1'])
    assert.equal(loadConfig({ BERTH_CONFIG: '', BERTH_DATABASE_URL_FILE: '' }, work).database.url, undefined)
  })

  void it('a section whose lines are all commented out counts as not set', () => {
    assert.equal(loadConfig({ BERTH_CONFIG: file('null.yaml', 'http:\n#  port: 1\n') }, work).http.port, 5000)
    assert.equal(loadConfig({ BERTH_CONFIG: file('nothing.yaml', '# nothing\n') }, work).http.port, 5000)
  })

  void it('a secret can lie in a file of its own', () => {
    const url = 'postgres://berth:secret@db/berth'
    const config = loadConfig({ BERTH_DATABASE_URL_FILE: file('url', `${url}\n`) }, work)

    assert.equal(config.database.url, url)
  })

  void it('what Kubernetes adds beside a service called berth is none of our settings', () => {
    const links = {
      BERTH_SERVICE_HOST: '10.0.0.1',
      BERTH_SERVICE_PORT: '5000',
      BERTH_SERVICE_PORT_HTTP: '5000',
      BERTH_PORT: 'tcp://10.0.0.1:5000',
      BERTH_PORT_5000_TCP: 'tcp://10.0.0.1:5000',
      BERTH_PORT_5000_TCP_ADDR: '10.0.0.1',
    }
    assert.deepEqual(faultsOf(links), [])
    assert.match(messageOf({ BERTH_PORT: '5000' }), /^BERTH_PORT: there is no such setting/)
  })
})

void describe('faults', () => {
  void it('all are told at once, each with its path and what would be valid', () => {
    const BERTH_CONFIG = file('faults.yaml', 'http: { prot: 1 }\nlog: { level: loud }\nregistry: { lease: soon }\n')
    const faults = faultsOf({ BERTH_CONFIG, BERTH_HTTP_PORT: '70000', BERTH_DATABASE_POOL_SIZE: 'many' })

    assert.deepEqual(Object.fromEntries(faults.map(({ path, message }) => [path, message])), {
      'http.prot': 'there is no such setting; is http.port meant?',
      'http.port': 'must be a whole number from 0 to 65535',
      'log.level': 'must be trace, debug, info, warn, error, fatal or silent',
      'registry.lease': 'must be a duration with its unit, such as 500ms, 30s, 10m, 24h or 7d, from 1ms to 3650d',
      'database.poolSize': 'must be a whole number from 1 to 500',
    })
  })

  void it('an unknown variable is a fault, with the one that is probably meant', () => {
    assert.match(messageOf({ BERTH_HTTP_PROT: '1' }), /BERTH_HTTP_PORT meant/)
    assert.match(messageOf({ BERTH_SOMETHING_ELSE_ENTIRELY: '1' }), /docs\/configuration\.md/)
  })

  void it('a file that is absent, no YAML, or no mapping is a fault of one line', () => {
    for (const BERTH_CONFIG of [join(work, 'absent'), file('bad.yaml', 'a: [\n'), file('list.yaml', '- a\n')]) {
      const message = messageOf({ BERTH_CONFIG })
      assert.match(message, /^BERTH_CONFIG: /)
      assert.doesNotMatch(message, /\n/)
    }
  })

  void it('a secret is given once: as a variable or as a file that can be read', () => {
    const BERTH_DATABASE_URL_FILE = file('twice', 'postgres://a/b')
    assert.match(messageOf({ BERTH_DATABASE_URL: 'postgres://a/b', BERTH_DATABASE_URL_FILE }), /not both/)
    assert.match(messageOf({ BERTH_DATABASE_URL_FILE: join(work, 'absent') }), /cannot be read/)
    assert.match(messageOf({ BERTH_DATABASE_URL_FILE: file('hollow', '\n') }), /must not be empty|postgres:/)
  })

  void it('a message never shows a secret', () => {
    for (const url of ['mysql://u:s3cret@h/d', 'postgres://u:s3cret@h:port/d']) {
      assert.doesNotMatch(messageOf({ BERTH_DATABASE_URL: url }), /s3cret/)
    }
  })

  const senseless: Record<string, readonly string[]> = {
    BERTH_HTTP_PORT: ['-1', '65536', '5e3', '0x10', '80.5', 'http', ' '],
    BERTH_HTTP_IDLE_TIMEOUT: ['0s', '-5s', '30', '2d', 's', '1y', '1 minute'],
    BERTH_HTTP_SHUTDOWN_TIMEOUT: ['-1s', '2h', 'never'],
    BERTH_DATABASE_STATEMENT_TIMEOUT: ['0ms', '50ms', '2h'],
    BERTH_DATABASE_POOL_SIZE: ['0', '-1', '501', '1.5'],
    BERTH_REGISTRY_LEASE: ['0h', '-1h', '99999d'],
    BERTH_REGISTRY_UPLOAD_EXPIRY: ['0s'],
    BERTH_REGISTRY_TRASH_GRACE: ['0s'],
    BERTH_REGISTRY_PULL_COUNT_INTERVAL: ['0s', '2h'],
    BERTH_REGISTRY_PULLS_IGNORED_OF: ['a scanner', 'robot+', 'group:scanners'],
    BERTH_REGISTRY_MANIFEST_MAX_BYTES: ['0', '1MiB', '-4MiB', '1GiB', '8MB'],
    BERTH_STORAGE_UPLOAD_MEMORY: ['0', '1MiB', '1TiB'],
    BERTH_METRICS_ENABLED: ['yes', '1', 'TRUE'],
    BERTH_AUTH_MODE: ['none', 'Open'],
    BERTH_LOG_FORMAT: ['xml'],
  }
  for (const [name, values] of Object.entries(senseless)) {
    void it(`${name} takes nothing that makes no sense`, () => {
      for (const value of values) assert.match(messageOf({ [name]: value }), /must be/, `${name}=${value}`)
    })
  }

  void it('what was deleted is kept for an hour and a lease at least, and its history as long; bytes for an hour', () => {
    assert.match(messageOf({ BERTH_REGISTRY_TRASH_GRACE: '59m' }), /^registry\.trashGrace: .*1h/)
    const short = { BERTH_REGISTRY_LEASE: '1m', BERTH_REGISTRY_DELETE_GRACE: '59m' }
    assert.match(messageOf(short), /^registry\.deleteGrace: .*1h/)
    const trial = { ...short, BERTH_REGISTRY_TRASH_GRACE: '1s', BERTH_REGISTRY_ALLOW_SHORT_GRACE: 'true' }
    assert.equal(loadConfig(trial, work).registry.deleteGraceMs, 59 * 60_000)
    assert.match(messageOf({ BERTH_REGISTRY_DELETE_GRACE: '2h' }), /^registry\.deleteGrace: .*registry\.lease/)
    assert.match(messageOf({ BERTH_REGISTRY_TAG_HISTORY_RETENTION: '1d' }), /^registry\.tagHistoryRetention: /)
  })

  void it('content that lost its tag cannot be kept for less than a lease', () => {
    assert.match(messageOf({ BERTH_REGISTRY_UNTAGGED_RETENTION: '1h' }), /^registry\.untaggedRetention: .*lease/)
  })
})

void describe('who logs in', () => {
  void it('is never set for a registry that asks nobody to', () => {
    const settings = {
      BERTH_AUTH_HTPASSWD: import.meta.filename,
      BERTH_AUTH_REALM: 'https://auth.example/token',
      BERTH_AUTH_ISSUERS: '[{"issuer":"a","jwksUrl":"https://auth.example/keys"}]',
    }
    const paths = ['auth.htpasswd', 'auth.issuers', 'auth.realm']
    for (const mode of ['', 'open']) {
      const faults = faultsOf({ ...settings, BERTH_AUTH_MODE: mode })
      assert.deepEqual(
        faults.map(fault => fault.path),
        paths,
      )
    }
    assert.deepEqual(faultsOf({ ...settings, BERTH_AUTH_MODE: 'token' }), [])
  })
})

void describe('listening beyond loopback', () => {
  void it('is refused unless it is said that nobody has to log in', () => {
    for (const BERTH_HTTP_HOST of ['0.0.0.0', '::', '10.0.0.1', 'registry.example', '::ffff:10.0.0.1', '127.1']) {
      assert.match(messageOf({ BERTH_HTTP_HOST }), /BERTH_AUTH_MODE=open/, BERTH_HTTP_HOST)
      assert.equal(loadConfig({ BERTH_HTTP_HOST, BERTH_AUTH_MODE: 'open' }, work).http.host, BERTH_HTTP_HOST)
    }
  })

  void it('every spelling of loopback is this machine', () => {
    for (const BERTH_HTTP_HOST of [
      'localhost',
      '127.0.0.1',
      '127.8.8.8',
      '::1',
      '0:0:0:0:0:0:0:1',
      '::ffff:127.0.0.1',
    ]) {
      assert.deepEqual(faultsOf({ BERTH_HTTP_HOST }), [], BERTH_HTTP_HOST)
    }
  })
})

void it('durations and sizes are read in their units', () => {
  const config = loadConfig(
    { BERTH_HTTP_IDLE_TIMEOUT: '1.5m', BERTH_REGISTRY_LEASE: '500ms', BERTH_STORAGE_UPLOAD_MEMORY: '0.5GiB' },
    work,
  )
  const bytes = loadConfig({ BERTH_STORAGE_UPLOAD_MEMORY: '8388608' }, work).storage.uploadMemoryBytes

  assert.deepEqual([config.http.idleTimeoutMs, config.registry.leaseMs], [90_000, 500])
  assert.deepEqual([config.storage.uploadMemoryBytes, bytes], [2 ** 29, 2 ** 23])
})

void it('files of TLS that are not there, half of them, and a port given twice are faults', () => {
  const missing = join(work, 'nothing.pem')
  const both = faultsOf({ BERTH_TLS_CERT: missing, BERTH_TLS_KEY: missing })
  assert.deepEqual(
    both.map(fault => fault.path),
    ['tls.cert', 'tls.key'],
  )
  assert.deepEqual(
    faultsOf({ BERTH_TLS_CERT: import.meta.filename }).map(fault => fault.path),
    ['tls.key'],
  )
  assert.deepEqual(
    faultsOf({ BERTH_HTTP_PORT: '7000', BERTH_METRICS_PORT: '7000' }).map(fault => fault.path),
    ['metrics.port'],
  )
})
