import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, open, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, beforeEach, suite, test } from 'node:test'
import { type Database, DatabaseUnavailable } from '../../src/metadata/database.ts'
import type { StorageKey } from '../../src/storage/blob-store.ts'
import { type TestApp, startApp } from '../support/app.ts'
import { type FaultyStore, faultyStore } from '../support/faulty-store.ts'
import {
  assertBytes,
  assertUnavailable,
  close,
  manifestOf,
  offsetOf,
  openUpload,
  patch,
  pushBlob,
  putManifest,
  sha256,
  sha512,
} from '../support/push.ts'
import { openConnection } from '../support/raw-connection.ts'

/** When a commit of the index gives no answer: before it took place, or after. */
type LostCommit = 'before' | 'after'

void suite('a backend that fails (RFC 9110 section 15.6.4: 503 with Retry-After)', () => {
  let app: TestApp<FaultyStore>
  let lostCommit: LostCommit | undefined
  let disk: 'sound' | 'full' = 'sound'

  /** Commits whose outcome nobody hears, for transactions that remove an upload. */
  const losing = (db: Database): Database => ({
    driver: db.driver,
    query: (text, values) => db.query(text, values),
    async transaction(work) {
      let closes = false
      const outcome = await db.transaction(async tx => {
        const seen = {
          ...tx,
          query: (text: string, values?: readonly unknown[]) => {
            closes ||= text.startsWith('delete from upload')
            return tx.query(text, values)
          },
        } as typeof tx
        const result = await work(seen)
        if (closes && lostCommit === 'before') throw new DatabaseUnavailable('told to lose the connection')
        return result
      })
      if (closes && lostCommit === 'after') throw new DatabaseUnavailable('told to lose the answer to commit')
      return outcome
    },
    changes: () => db.changes(),
    load: () => db.load(),
    close: () => db.close(),
  })

  const opening = async (path: string, flags: number): Promise<FileHandle> => {
    const handle = await open(path, flags, 0o640)
    if (flags !== constants.O_RDONLY) {
      const writev = handle.writev.bind(handle)
      handle.writev = (async (...args) => {
        if (disk === 'sound') return await writev(...args)
        throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC', syscall: 'write' })
      }) as FileHandle['writev']
    }
    return handle
  }

  before(async () => {
    app = await startApp({ wrapStore: faultyStore, wrapDatabase: losing, open: opening })
  })
  after(() => app.close())
  beforeEach(() => {
    app.store.failing = undefined
    lostCommit = undefined
    disk = 'sound'
  })

  const failing = async (step: FaultyStore['failing'], ask: () => Promise<Response>): Promise<void> => {
    app.store.failing = step
    const before = app.store.failures
    await assertUnavailable(await ask())
    assert.ok(app.store.failures > before, `${step} was never reached`)
    app.store.failing = undefined
  }

  for (const step of ['append', 'sync'] as const) {
    void test(`a chunk that fails at ${step} is 503, counts for nothing, and can be sent again`, async () => {
      const bytes = randomBytes(300_000)
      const location = await openUpload(app.url, 'fault/chunk')
      assert.equal((await patch(location, bytes.subarray(0, 100_000), 0)).status, 202)
      await failing(step, () => patch(location, bytes.subarray(100_000), 100_000))
      assert.equal(await offsetOf(location), 100_000)
      assert.equal((await patch(location, bytes.subarray(100_000), 100_000)).status, 202)
      assert.equal((await close(location, sha256(bytes))).status, 201)
    })
  }

  for (const step of ['append', 'sync', 'finish', 'finished'] as const) {
    void test(`a push in one piece that fails at ${step} is 503, makes no blob, and can be repeated`, async () => {
      const bytes = randomBytes(200_000)
      const digest = sha256(bytes)
      const location = await openUpload(app.url, 'fault/close')
      await failing(step, () => close(location, digest, bytes))
      const blob = `${app.url}/v2/fault/close/blobs/${digest}`
      assert.equal((await fetch(blob, { method: 'HEAD' })).status, 404)
      const held = await offsetOf(location)
      const again = await close(location, digest, held === 0 ? bytes : undefined)
      assert.equal(again.status, 201)
      await assertBytes(await fetch(blob), bytes)
    })
  }

  void test('a close whose content has to be read is 503 while it cannot be, and 201 afterwards', async () => {
    const bytes = randomBytes(50_000)
    const location = await openUpload(app.url, 'fault/read')
    assert.equal((await patch(location, bytes)).status, 202)
    // Nobody said before that the digest would be sha512, so the bytes were not hashed for it on their way.
    await failing('read', () => close(location, sha512(bytes)))
    assert.equal((await close(location, sha512(bytes))).status, 201)
  })

  void test('content that turns out wrong when it is read ends its session, since what is finished cannot grow', async () => {
    const location = await openUpload(app.url, 'fault/wrong')
    assert.equal((await patch(location, randomBytes(50_000))).status, 202)
    assert.equal((await close(location, sha512('something else'))).status, 400)
    assert.equal((await fetch(location)).status, 404)
  })

  for (const range of [undefined, 'bytes=10-19']) {
    void test(`a blob that cannot be read is 503 and says nothing of its content (${range ?? 'whole'})`, async () => {
      const bytes = randomBytes(100_000)
      const digest = await pushBlob(app.url, 'fault/send', bytes)
      const get = (): Promise<Response> =>
        fetch(`${app.url}/v2/fault/send/blobs/${digest}`, range === undefined ? {} : { headers: { Range: range } })
      app.store.failing = 'send'
      const refused = await get()
      for (const name of ['cache-control', 'etag', 'content-range', 'docker-content-digest']) {
        assert.equal(refused.headers.get(name), null, name)
      }
      await assertUnavailable(refused)
      app.store.failing = undefined
      const got = await get()
      await assertBytes(got, range === undefined ? bytes : bytes.subarray(10, 20))
    })
  }

  void test('a blob whose file lost its end is 503, not a body that never ends', async () => {
    const digest = await pushBlob(app.url, 'fault/short', randomBytes(100_000))
    const [row] = await app.db.query<{ storage_key: string }>('select storage_key from blob where digest = $1', [
      digest,
    ])
    assert.ok(row !== undefined)
    await truncate(join(app.directory, 'blobs', row.storage_key.slice(0, 2), row.storage_key), 60_000)
    await assertUnavailable(await fetch(`${app.url}/v2/fault/short/blobs/${digest}`))
  })

  void test('a disk that fills in the middle of a body is 503, and the next request on that connection is answered', async () => {
    const bytes = randomBytes(4_000_000)
    const digest = sha256(bytes)
    const location = await openUpload(app.url, 'fault/disk')
    const path = new URL(location).pathname
    const connection = await openConnection(app.port)
    disk = 'full'
    connection.write(`PUT ${path}?digest=${digest} HTTP/1.1\r\nHost: x\r\nContent-Length: ${bytes.byteLength}\r\n\r\n`)
    connection.write(bytes)
    const refused = await connection.answer()
    assert.equal(refused.status, 503)
    assert.match(refused.headers.get('retry-after') ?? '', /^\d+$/)
    disk = 'sound'
    connection.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`)
    const status = await connection.answer()
    assert.equal(status.status, 204)
    assert.equal(status.headers.get('range'), '0-0')
    connection.socket.destroy()
    assert.equal((await close(location, digest, bytes)).status, 201)
  })

  for (const [when, kept] of [
    ['before', 'the session'],
    ['after', 'the blob'],
  ] as const) {
    void test(`a commit whose answer is lost ${when} it took place deletes no bytes: ${kept} decides`, async () => {
      const bytes = randomBytes(80_000)
      const digest = sha256(bytes)
      const location = await openUpload(app.url, 'fault/commit')
      lostCommit = when
      await assertUnavailable(await close(location, digest, bytes))
      lostCommit = undefined
      const head = await fetch(`${app.url}/v2/fault/commit/blobs/${digest}`, { method: 'HEAD' })
      assert.equal(head.status, when === 'after' ? 200 : 404)
      assert.equal((await close(location, digest)).status, 201)
      const got = await fetch(`${app.url}/v2/fault/commit/blobs/${digest}`)
      await assertBytes(got, bytes)
      const [row] = await app.db.query<{ storage_key: StorageKey }>('select storage_key from blob where digest = $1', [
        digest,
      ])
      assert.ok(row !== undefined)
      assert.deepEqual(await app.store.stat(row.storage_key), { size: bytes.byteLength })
      assert.deepEqual(await app.db.query('select from trash where storage_key = $1', [row.storage_key]), [])
    })
  }

  void test('what was acknowledged before the failures is all there after them', async () => {
    const config = Buffer.from('{}')
    const layer = randomBytes(120_000)
    for (const bytes of [config, layer]) await pushBlob(app.url, 'fault/kept', bytes)
    const body = manifestOf(config, [layer])
    assert.equal((await putManifest(app.url, 'fault/kept', 'v1', body)).status, 201)
    app.store.failing = 'append'
    await assertUnavailable(await close(await openUpload(app.url, 'fault/kept'), sha256(layer), layer))
    // Manifests are rows: they are served while the bytes of blobs are out of reach.
    assert.equal(await (await fetch(`${app.url}/v2/fault/kept/manifests/v1`)).text(), body)
    app.store.failing = undefined
    const got = await fetch(`${app.url}/v2/fault/kept/blobs/${sha256(layer)}`)
    await assertBytes(got, layer)
    assert.deepEqual(app.strayErrors, [])
  })
})
