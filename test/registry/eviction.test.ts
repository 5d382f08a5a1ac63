import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { Writable } from 'node:stream'
import { after, before, beforeEach, suite, test } from 'node:test'
import { purgeTrash } from '../../src/gc/purge.ts'
import { sweep } from '../../src/gc/sweep.ts'
import { walkIndex } from '../../src/gc/consistency.ts'
import type { Database } from '../../src/metadata/database.ts'
import { measureCopies } from '../../src/metadata/eviction.ts'
import { totalUsage } from '../../src/metadata/usage.ts'
import type { Digest } from '../../src/oci/digest.ts'
import { RegistryError } from '../../src/oci/errors.ts'
import { parseName, parseReference } from '../../src/oci/name.ts'
import type { RegistryContext } from '../../src/registry/context.ts'
import { type Evicted, evict } from '../../src/registry/eviction.ts'
import { MirroredUses } from '../../src/registry/mirrored-uses.ts'
import { Stores } from '../../src/storage/stores.ts'
import { LOCAL, withAdministration } from '../support/administration.ts'
import { type TestDatabase, testDriver, withDatabase } from '../support/database.ts'
import { PUSHER, type TestRegistry, pushBlob, pushImage, pushIndex, withRegistry } from '../support/registry.ts'

const KiB = 1024
const HOUR_MS = 3_600_000
const MINUTE_MS = 60_000
/** The manifests and configs of a scene take less than this. */
const SMALL = 20 * KiB

void suite('making room in a mirror: what was not used for longest goes first', () => {
  let database: TestDatabase
  let db: Database
  let opened: TestRegistry
  let context: RegistryContext
  let uses: MirroredUses
  let prefix: string
  let scenes = 0

  before(async () => {
    database = await withDatabase()
    db = database.db
    opened = await withRegistry(db, { requireBlobs: false })
    const lifetimes = {
      leaseMs: HOUR_MS,
      untaggedRetentionMs: HOUR_MS,
      deleteGraceMs: HOUR_MS,
      uploadExpiryMs: HOUR_MS,
      trashGraceMs: HOUR_MS,
    }
    const stores = new Stores({ store: opened.store })
    context = { db, stores, lifetimes, requireBlobs: false, requireChildren: false, allowChildDelete: false }
  })
  beforeEach(() => {
    uses = new MirroredUses(db)
    scenes += 1
    prefix = `mirror${scenes}`
  })
  after(async () => {
    await opened.close()
    await database.close()
  })

  /** An image with one layer of `bytes`, last used so many minutes ago. */
  async function copy(
    repository: string,
    tag: string | undefined,
    bytes: number,
    minutesAgo: number,
    layer?: Digest,
  ): Promise<{ readonly manifest: Digest; readonly layer: Digest }> {
    const name = `${prefix}/${repository}`
    const own = layer ?? (await pushBlob(opened.registry, name, randomBytes(bytes)))
    const manifest = await pushImage(opened.registry, name, tag, { layers: [own] })
    await used(repository, manifest, minutesAgo, false)
    return { manifest, layer: own }
  }

  async function used(repository: string, digest: Digest, minutesAgo: number, isBlob: boolean): Promise<void> {
    const name = parseName(`${prefix}/${repository}`)
    const [row] = await db.query<{ id: number }>('select id from repository where name = $1', [name])
    assert.ok(row)
    if (isBlob) uses.noteBlob(prefix, name, digest)
    else uses.noteManifest(prefix, name, digest)
    await uses.write()
    await db.query(
      `update mirrored_use set used_at = now() - $3 * interval '1 minute' where repository_id = $1 and digest = $2`,
      [row.id, digest, minutesAgo],
    )
  }

  async function makeRoom(maxBytes: number, more: { spareMs?: number; isRemovable?: boolean } = {}): Promise<Evicted> {
    const { signal } = new AbortController()
    const { isRemovable = false, spareMs = MINUTE_MS } = more
    return await evict(context, { prefix, maxBytes, isRemovable }, { spareMs, signal })
  }

  async function isHere(repository: string, reference: string): Promise<boolean> {
    try {
      const name = parseName(`${prefix}/${repository}`)
      await opened.registry.statManifest(name, parseReference(reference), { mayPush: false })
      return true
    } catch (error) {
      if (error instanceof RegistryError && error.code === 'MANIFEST_UNKNOWN') return false
      throw error
    }
  }

  async function hasBlob(repository: string, digest: Digest): Promise<boolean> {
    try {
      await opened.registry.statBlob(parseName(`${prefix}/${repository}`), digest, { mayPush: false })
      return true
    } catch (error) {
      if (error instanceof RegistryError && error.code === 'BLOB_UNKNOWN') return false
      throw error
    }
  }

  const collect = async (): Promise<void> => {
    await sweep(db, { batch: 100, leaseMs: HOUR_MS, trashGraceMs: HOUR_MS }, () => Promise.resolve())
  }

  /** Rows the collector would have missed: an eviction must leave none. */
  async function drift(): Promise<number> {
    let found = 0
    const options = {
      db,
      window: 500,
      windows: 1_000,
      leaseMs: HOUR_MS,
      pause: () => Promise.resolve(),
      onDrift: (_table: string, rows: number) => void (found += rows),
    }
    await walkIndex(options, { cursor: undefined, progress: undefined, save: () => Promise.resolve() })
    return found
  }

  test('the longest unused go, with their tags, until a tenth of the room is free; the others stay', async () => {
    const old = await copy('a', 'v1', 100 * KiB, 300)
    const middle = await copy('b', 'v1', 100 * KiB, 200)
    const young = await copy('a', 'v2', 100 * KiB, 100)
    const done = await makeRoom(250 * KiB)
    assert.deepEqual([done.evicted, done.isFull], [1, false])
    assert.ok(done.bytes >= 100 * KiB && done.bytes < 100 * KiB + SMALL)
    assert.deepEqual(
      [await isHere('a', 'v1'), await isHere('a', old.manifest), await hasBlob('a', old.layer)],
      [false, false, false],
    )
    for (const [repository, tag, { manifest, layer }] of [
      ['b', 'v1', middle],
      ['a', 'v2', young],
    ] as const) {
      assert.ok(await isHere(repository, tag))
      assert.ok(await isHere(repository, manifest))
      assert.ok(await hasBlob(repository, layer))
    }
    assert.equal(await drift(), 0)
  })

  test('nothing goes while there is room, and a blob that many repositories share counts once', async () => {
    const { layer } = await copy('a', 'v1', 200 * KiB, 300)
    for (const repository of ['b', 'c']) {
      const mount = {
        name: parseName(`${prefix}/${repository}`),
        digest: layer,
        from: parseName(`${prefix}/a`),
        visible: [],
      }
      assert.ok(await opened.registry.mountBlob(mount, PUSHER))
      await copy(repository, 'v1', 0, 200, layer)
    }
    assert.ok((await measureCopies(db, prefix)) < 200 * KiB + SMALL)
    assert.deepEqual((await makeRoom(250 * KiB)).evicted, 0)
    const done = await makeRoom(100 * KiB)
    assert.deepEqual([done.evicted, done.isFull], [3, false], 'only with its last link the bytes are gone')
    assert.equal(await drift(), 0)
  })

  test('what was used within the time to spare stays, though there is too much', async () => {
    const copies = await Promise.all(['a', 'b'].map(repository => copy(repository, 'v1', 100 * KiB, 5)))
    const done = await makeRoom(50 * KiB, { spareMs: 10 * MINUTE_MS })
    assert.deepEqual([done.evicted, done.isFull], [0, true])
    assert.ok((await isHere('a', 'v1')) && (await isHere('b', 'v1')))
    assert.equal((await makeRoom(50 * KiB, { spareMs: MINUTE_MS })).evicted, copies.length)
  })

  test('a blob that is being read outlives its manifest, and goes by its own last use', async () => {
    const { manifest, layer } = await copy('a', 'v1', 100 * KiB, 300)
    await used('a', layer, 1, true)
    await makeRoom(50 * KiB, { spareMs: 10 * MINUTE_MS })
    assert.deepEqual([await isHere('a', manifest), await hasBlob('a', layer)], [false, true])
    await used('a', layer, 20, true)
    assert.equal((await makeRoom(50 * KiB, { spareMs: 10 * MINUTE_MS })).evicted, 1)
    assert.equal(await hasBlob('a', layer), false)
    assert.equal(await drift(), 0)
  })

  test('a download that is under way ends well: the bytes wait in the trash', async () => {
    const bytes = randomBytes(600 * KiB)
    const name = parseName(`${prefix}/a`)
    const layer = await pushBlob(opened.registry, name, bytes)
    await used('a', await pushImage(opened.registry, name, 'v1', { layers: [layer] }), 300, false)
    const blob = await opened.registry.statBlob(name, layer, { mayPush: false })
    const received: Buffer[] = []
    const first = Promise.withResolvers<void>()
    const goOn = Promise.withResolvers<void>()
    const slow = new Writable({
      highWaterMark: 1,
      write(chunk: Buffer, _encoding, done) {
        received.push(Buffer.from(chunk))
        first.resolve()
        void goOn.promise.then(() => done())
      },
    })
    const sending = opened.registry.sendBlob(blob, undefined, slow, new AbortController().signal)
    await first.promise
    assert.equal((await makeRoom(100 * KiB)).evicted, 1)
    await collect()
    await purgeTrash(db, opened.store)
    assert.equal(await hasBlob('a', layer), false)
    goOn.resolve()
    await sending
    await new Promise<void>(ended => slow.end(ended))
    assert.ok(Buffer.concat(received).equals(bytes))
    const trash = await db.query('select storage_key from trash where digest = $1 and purging_at is null', [layer])
    assert.equal(trash.length, 1)
  })

  test('referrers go with their subject and not before; one that is in use keeps it', async () => {
    const { manifest } = await copy('a', 'v1', 100 * KiB, 100)
    const name = `${prefix}/a`
    const layers = [await pushBlob(opened.registry, name, randomBytes(50 * KiB))]
    const signature = await pushImage(opened.registry, name, undefined, { layers, subject: manifest })
    const younger = await copy('b', 'v1', 100 * KiB, 50)
    await used('a', signature, 500, false)
    await copy('c', 'v1', 100 * KiB, 200)
    await makeRoom(320 * KiB)
    assert.deepEqual([await isHere('c', 'v1'), await isHere('a', signature)], [false, true])
    await used('a', signature, 1, false)
    await makeRoom(200 * KiB, { spareMs: 10 * MINUTE_MS })
    assert.deepEqual([await isHere('a', 'v1'), await isHere('b', younger.manifest)], [true, false])
    await used('a', signature, 40, false)
    await used('a', manifest, 40, false)
    await makeRoom(100 * KiB, { spareMs: 10 * MINUTE_MS })
    assert.deepEqual([await isHere('a', 'v1'), await isHere('a', signature)], [false, false])
    assert.equal(await drift(), 0)
  })

  test('an image of an index goes by itself, and the index stays whole in bytes', async () => {
    const image = await copy('a', undefined, 100 * KiB, 300)
    const other = await copy('a', undefined, 100 * KiB, 10)
    const index = await pushIndex(opened.registry, `${prefix}/a`, 'v1', [image.manifest, other.manifest])
    await used('a', index, 10, false)
    await makeRoom(200 * KiB, { spareMs: 20 * MINUTE_MS })
    assert.deepEqual(
      [await isHere('a', image.manifest), await isHere('a', other.manifest), await isHere('a', index)],
      [false, true, true],
    )
    assert.equal(await drift(), 0)
  })

  test('a tag that a rule keeps is kept, and something else goes in its place', async () => {
    await copy('a', 'stable', 100 * KiB, 300)
    await copy('a', 'other', 100 * KiB, 200)
    const admin = withAdministration(db)
    const rule = { name: `rule-${prefix}`, pattern: `${prefix}/a`, tags: 'stable', immutable: true, protected: false }
    await admin.addTagRule(LOCAL, { ...rule, mayExpire: false, writers: [] })
    await makeRoom(150 * KiB)
    assert.deepEqual([await isHere('a', 'stable'), await isHere('a', 'other')], [true, false])
  })

  test('copies of which no use was ever noted go by when they came', async () => {
    await pushImage(opened.registry, `${prefix}/a`, 'v1', {
      layers: [await pushBlob(opened.registry, `${prefix}/a`, randomBytes(100 * KiB))],
    })
    const orphan = await pushBlob(opened.registry, `${prefix}/a`, randomBytes(100 * KiB))
    await db.query(`update manifest set pushed_at = now() - interval '1 day'`)
    await db.query(`update blob set created_at = now() - interval '1 day' where digest = $1`, [orphan])
    assert.equal((await makeRoom(10 * KiB)).evicted, 2)
    assert.deepEqual([await isHere('a', 'v1'), await hasBlob('a', orphan)], [false, false])
  })

  test('each eviction is an event, and the counters of usage agree with what is left', async () => {
    const { manifest } = await copy('a', 'v1', 100 * KiB, 300)
    const before = await totalUsage(db)
    const { bytes } = await makeRoom(50 * KiB)
    const events = await db.query<{ kind: string; detail: { digest: string; tags: string[]; bytes: number } }>(
      'select kind, detail from event where repository = $1 and kind like $2',
      [`${prefix}/a`, '%.evict'],
    )
    assert.deepEqual(events, [{ kind: 'manifest.evict', detail: { digest: manifest, tags: ['v1'], bytes } }])
    const after = await totalUsage(db)
    assert.deepEqual(
      [before.bytes - after.bytes, before.manifests - after.manifests, before.tags - after.tags],
      [bytes, 1, 1],
    )
  })

  test('two processes at once take no more than one would', async () => {
    for (let each = 0; each < 12; each += 1) await copy('a', `v${each}`, 20 * KiB, 300 - each)
    const other = testDriver === 'postgres' ? await database.another() : db
    const { signal } = new AbortController()
    const run = async (on: Database): Promise<Evicted> =>
      await evict(
        { ...context, db: on },
        { prefix, maxBytes: 150 * KiB, isRemovable: false },
        { spareMs: MINUTE_MS, signal },
      )
    const done = await Promise.all([run(db), run(other), run(db), run(other)])
    const bytes = await measureCopies(db, prefix)
    assert.ok(bytes <= 150 * KiB && bytes > (150 * 0.9 - 30) * KiB, String(bytes))
    assert.equal(
      done.reduce((sum, { evicted }) => sum + evicted, 0),
      12 - (await left('a')),
    )
    assert.equal(await drift(), 0)
  })

  async function left(repository: string): Promise<number> {
    return (await opened.registry.listTags(parseName(`${prefix}/${repository}`), '', 100, { mayPush: false })).items
      .length
  }

  test('what was measured is not measured again until so much came as may be missing', async () => {
    await copy('a', 'v1', 100 * KiB, 300)
    const { layer } = await copy('b', 'v1', 100 * KiB, 300)
    const mount = { name: parseName(`${prefix}/c`), digest: layer, from: parseName(`${prefix}/b`), visible: [] }
    assert.ok(await opened.registry.mountBlob(mount, PUSHER))
    const measured = async (): Promise<boolean> => (await makeRoom(250 * KiB)).measuredBytes !== undefined
    assert.deepEqual([await measured(), await measured()], [true, false])
    await copy('c', 'v1', 100 * KiB, 300)
    assert.equal(await measured(), true)
  })

  test('a mirror that was removed keeps what it has, also where a process has not heard of it', async () => {
    await copy('a', 'v1', 100 * KiB, 300)
    assert.equal((await makeRoom(10 * KiB, { isRemovable: true })).evicted, 0)
    assert.ok(await isHere('a', 'v1'))
  })
})
