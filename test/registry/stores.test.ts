import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { afterEach, beforeEach, suite, test } from 'node:test'
import { readiness } from '../../src/content-storage.ts'
import { purgeTrash } from '../../src/gc/purge.ts'
import { createLog } from '../../src/log.ts'
import { toRegistryError } from '../../src/middleware/errors.ts'
import type { Digest } from '../../src/oci/digest.ts'
import { parseName } from '../../src/oci/name.ts'
import type { Registry } from '../../src/registry/registry.ts'
import type { StorageKey } from '../../src/storage/blob-store.ts'
import { Stores } from '../../src/storage/stores.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { PUSHER, letTimePass, pushBlob, sha256, withRegistry } from '../support/registry.ts'
import { received } from '../support/received.ts'
import { type TwoStores, openTwoStores } from '../support/two-stores.ts'

const name = parseName('team/app')
const { signal } = new AbortController()
const log = createLog({ level: 'silent', format: 'json' })

void suite('content lies in the store that its row names', () => {
  let index: TestDatabase
  let two: TwoStores
  const opened: (() => Promise<void>)[] = []

  beforeEach(async () => {
    index = await withDatabase()
    two = await openTwoStores()
  })
  afterEach(async () => {
    for (const close of opened.splice(0)) await close()
    await two.close()
    await index.close()
  })

  async function registryOn(...stores: readonly TwoStores['old'][]): Promise<Registry> {
    const [first = two.old, ...others] = stores
    const all = new Stores({ store: first }, ...others.map(store => ({ store })))
    const rules = await withRegistry(index.db, { stores: all })
    opened.push(() => rules.close())
    return rules.registry
  }

  async function read(registry: Registry, digest: Digest): Promise<Buffer> {
    const blob = await registry.statBlob(name, digest, PUSHER)
    return await received(to => registry.sendBlob(blob, undefined, to, signal))
  }

  async function storeOf(digest: Digest): Promise<string | undefined> {
    const [row] = await index.db.query<{ store: string }>('select store from blob where digest = $1', [digest])
    return row?.store
  }

  const chunk = (bytes: Buffer, start?: number) => ({ stream: Readable.from([bytes]), start, signal })

  test('after a change of the default, what was there is read where it is and what comes goes to the new one', async () => {
    const bytes = randomBytes(100_000)
    const before = await pushBlob(await registryOn(two.old), 'team/app', bytes)
    const registry = await registryOn(two.next, two.old)
    const since = await pushBlob(registry, 'team/app')
    assert.deepEqual([await storeOf(before), await storeOf(since)], ['old', 'next'])
    assert.ok((await read(registry, before)).equals(bytes))
    assert.equal(sha256(await read(registry, since)), since)
  })

  test('an upload that is under way ends in the store where it began', async () => {
    const bytes = randomBytes(50_000)
    const first = await registryOn(two.old)
    const target = { name, id: await first.startUpload(name, PUSHER) }
    await first.appendUpload(target, chunk(bytes.subarray(0, 20_000)))
    const registry = await registryOn(two.next, two.old)
    await registry.appendUpload(target, chunk(bytes.subarray(20_000, 30_000), 20_000))
    await registry.finishUpload(target, sha256(bytes), chunk(bytes.subarray(30_000), 30_000))
    assert.equal(await storeOf(sha256(bytes)), 'old')
    assert.ok((await read(registry, sha256(bytes))).equals(bytes))
  })

  test('a close by an algorithm that nobody followed reads the store where the upload is', async () => {
    const bytes = randomBytes(50_000)
    const first = await registryOn(two.old)
    const target = { name, id: await first.startUpload(name, PUSHER) }
    await first.appendUpload(target, chunk(bytes))
    await index.db.query(`update upload set prefix_digest = '{}'`)
    const registry = await registryOn(two.next, two.old)
    await registry.finishUpload(target, sha256(bytes), undefined)
    assert.ok((await read(registry, sha256(bytes))).equals(bytes))
  })

  test('a blob that comes again lies in one store, and its second copy goes to the trash of the other', async () => {
    const bytes = randomBytes(100)
    const digest = await pushBlob(await registryOn(two.old), 'team/app', bytes)
    await pushBlob(await registryOn(two.next, two.old), 'team/other', bytes)
    assert.equal(await storeOf(digest), 'old')
    const [spare] = await index.db.query<{ store: string; storage_key: StorageKey }>(
      'select store, storage_key from trash',
    )
    assert.equal(spare?.store, 'next')
    await letTimePass(index.db)
    const purged = [await purgeTrash(index.db, two.old), await purgeTrash(index.db, two.next)]
    assert.deepEqual(
      purged.map(result => result.purged),
      [0, 1],
    )
    assert.equal(await two.next.stat(spare.storage_key), undefined)
  })

  // RFC 9110, section 15.6.4: the bytes may well be there, so it is no 404.
  test('what lies in a store that is not configured is 503 with Retry-After, and the process is not ready', async () => {
    const digest = await pushBlob(await registryOn(two.old), 'team/app')
    const registry = await registryOn(two.next)
    const refusal = await read(registry, digest).then(
      () => assert.fail('it was read'),
      (error: unknown) => toRegistryError(error),
    )
    assert.equal(refusal.status, 503)
    assert.match(refusal.headers['Retry-After'] ?? '', /^\d+$/)
    assert.match(String(refusal.cause), /the store old, which is not configured/)
    const lacking = await readiness(index.db, new Stores({ store: two.next }), log)
    assert.equal(lacking.isReady, false)
    assert.match(lacking.notes.join(), /the store old/)
    const all = new Stores({ store: two.next }, { store: two.old })
    assert.deepEqual(await readiness(index.db, all, log), { isReady: true, notes: [] })
  })

  test('trash and uploads alone are enough for a store to be needed', async () => {
    const first = await registryOn(two.old)
    await first.startUpload(name, PUSHER)
    const only = new Stores({ store: two.next })
    assert.equal((await readiness(index.db, only, log)).isReady, false)
    await index.db.query('delete from upload')
    assert.equal((await readiness(index.db, only, log)).isReady, true)
    await index.db.query(
      `insert into trash (store, storage_key, purge_after) values ('old', 'k', now()), ('a', 'k', now())`,
    )
    assert.match((await readiness(index.db, only, log)).notes.join('; '), /the store a,.*; .*the store old,/)
  })
})
