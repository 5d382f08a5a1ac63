import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import supertest from 'supertest'
import { createApp } from '../../src/app.ts'
import { type Database, DatabaseUnavailable } from '../../src/metadata/database.ts'
import { type TestRegistry, withRegistry } from '../support/registry.ts'

const fail = async (): Promise<never> => {
  throw new DatabaseUnavailable('the index cannot be reached')
}
const gone: Database = {
  driver: 'postgres',
  query: fail,
  transaction: fail,
  changes: () => undefined,
  load: () => ({ open: 0, busy: 0, waiting: 0 }),
  close: async () => {},
}

let rules: TestRegistry
before(async () => {
  rules = await withRegistry(gone)
})
after(() => rules.close())

function client() {
  const app = createApp({
    registry: rules.registry,
    manifestMaxBytes: 1024,
    tagListMax: 100,
    observe: () => {},
    onError: () => {},
    ready: async () => ({ isReady: false, notes: [] }),
  })
  return supertest(app.callback())
}

const digest = `sha256:${'0'.repeat(64)}`

// RFC 9110, section 15.6.4: a service that cannot answer now says 503 and when to come back, never that content is absent.
for (const [method, path] of [
  ['get', '/v2/a/b/manifests/latest'],
  ['head', '/v2/a/b/manifests/latest'],
  ['get', `/v2/a/b/manifests/${digest}`],
  ['head', `/v2/a/b/blobs/${digest}`],
  ['get', `/v2/a/b/blobs/${digest}`],
] as const) {
  void test(`without the index, ${method.toUpperCase()} ${path.slice(0, 30)} is 503 with Retry-After`, async () => {
    const response = await client()[method](path)
    assert.equal(response.status, 503)
    assert.match(response.headers['retry-after'] ?? '', /^\d+$/)
  })
}
