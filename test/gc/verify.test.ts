import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, afterEach, before, beforeEach, suite, test } from 'node:test'
import { Writable } from 'node:stream'
import { type VerificationProgress, type Verdict, type Verifier, verifyBlobs } from '../../src/gc/verify.ts'
import { purgeTrash } from '../../src/gc/purge.ts'
import { takeTurn } from '../../src/gc/work.ts'
import type { Digest } from '../../src/oci/digest.ts'
import { parseName } from '../../src/oci/name.ts'
import type { BlobStore, StorageKey } from '../../src/storage/blob-store.ts'
import { newKey } from '../../src/storage/keys.ts'
import { Stores } from '../../src/storage/stores.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { type FaultyStore, faultyStore } from '../support/faulty-store.ts'
import { PUSHER, type TestRegistry, letTimePass, pushBlob, pushImage, withRegistry } from '../support/registry.ts'

const NAME = parseName('team/app')
const OTHER = parseName('other/app')
const NOBODY = { mayPush: false }

void suite(
  'a verification reads stored bytes again (distribution-spec, "Pulling blobs": content is what its digest says)',
  () => {
    let index: TestDatabase
    let opened: TestRegistry
    let store: FaultyStore
    before(async () => {
      index = await withDatabase()
    })
    after(() => index.close())
    beforeEach(async () => {
      await index.db.transaction(tx => tx.script(`truncate repository, blob, trash, maintenance cascade`))
      opened = await withRegistry(index.db)
      store = faultyStore(opened.store)
    })
    afterEach(() => opened.close())

    type Verdicts = Map<Digest, Verdict>

    /** One turn of a verification; answers what was found, and the last progress that was saved. */
    async function verify(
      more: Partial<Verifier> = {},
    ): Promise<{ readonly verdicts: Verdicts; readonly progress: VerificationProgress | undefined }> {
      const verdicts: Verdicts = new Map()
      const { signal } = new AbortController()
      const verifier: Verifier = {
        db: index.db,
        stores: new Stores({ store }),
        bytesPerSecond: 1e12,
        signal,
        delay: () => Promise.resolve(),
        onVerdict: ({ digest }, verdict) => void verdicts.set(digest, verdict),
        ...more,
      }
      let progress: VerificationProgress | undefined
      await takeTurn<number, VerificationProgress>(index.db, { name: 'verification', everyMs: 0, signal }, turn =>
        verifyBlobs(verifier, {
          ...turn,
          async save(cursor, done) {
            progress = done
            await turn.save(cursor, done)
          },
        }),
      )
      return { verdicts, progress }
    }

    async function keyOf(digest: Digest): Promise<StorageKey> {
      const rows = await index.db.query<{ storage_key: StorageKey }>('select storage_key from blob where digest = $1', [
        digest,
      ])
      assert.ok(rows[0])
      return rows[0].storage_key
    }

    /** The store with other bytes under a key. */
    const corrupting = (key: StorageKey): BlobStore => ({
      ...store,
      async *read(asked, signal) {
        if (asked === key) yield Buffer.from('not what was pushed')
        else yield* store.read(asked, signal)
      },
    })

    const isThere = async (digest: Digest, name = NAME): Promise<boolean> =>
      await opened.registry.statBlob(name, digest, NOBODY).then(
        () => true,
        () => false,
      )

    async function readsAs(digest: Digest, bytes: Buffer, name = NAME): Promise<boolean> {
      const { key } = await opened.registry.statBlob(name, digest, NOBODY)
      const chunks: Buffer[] = []
      const sink = new Writable({
        write(chunk: Buffer, _encoding, done) {
          chunks.push(Buffer.from(chunk))
          done()
        },
      })
      await opened.store.send(key, undefined, sink, new AbortController().signal)
      return Buffer.concat(chunks).equals(bytes)
    }

    test('finds nothing wrong with what is sound', async () => {
      await pushImage(opened.registry, NAME, 'v1', { layers: [await pushBlob(opened.registry, NAME)] })
      const { verdicts, progress } = await verify()
      assert.deepEqual([...verdicts.values()], ['sound', 'sound'])
      assert.deepEqual(progress, { blobs: 2, bytes: 128, damaged: 0, missing: 0, recovered: 0 })
    })

    test('a damaged blob is absent to everybody, no new manifest may name it, and one push repairs every repository', async () => {
      const bytes = randomBytes(64)
      const layer = await pushBlob(opened.registry, NAME, bytes)
      await opened.registry.mountBlob({ name: OTHER, digest: layer, from: NAME, visible: [] }, PUSHER)
      await pushImage(opened.registry, NAME, 'v1', { layers: [layer] })
      const damaged = await keyOf(layer)
      const { verdicts } = await verify({ stores: new Stores({ store: corrupting(damaged) }) })
      assert.equal(verdicts.get(layer), 'damaged')
      assert.deepEqual([await isThere(layer), await isThere(layer, OTHER)], [false, false])
      const third = { name: parseName('third/app'), digest: layer, from: NAME, visible: [] }
      assert.equal(await opened.registry.mountBlob(third, PUSHER), false)
      const naming = pushImage(opened.registry, NAME, 'v2', { layers: [layer] })
      await assert.rejects(naming, { code: 'MANIFEST_BLOB_UNKNOWN' })

      assert.equal(await pushBlob(opened.registry, OTHER, bytes), layer)
      assert.ok((await readsAs(layer, bytes)) && (await readsAs(layer, bytes, OTHER)))
      assert.notEqual(await keyOf(layer), damaged)
      await pushImage(opened.registry, NAME, 'v2', { layers: [layer] })
      await letTimePass(index.db)
      await purgeTrash(index.db, opened.store)
      assert.equal(await opened.store.stat(damaged), undefined, 'the damaged bytes go')
      assert.ok(await readsAs(layer, bytes))
    })

    test('so it is with a blob whose bytes are gone', async () => {
      const bytes = randomBytes(64)
      const layer = await pushBlob(opened.registry, NAME, bytes)
      await pushImage(opened.registry, NAME, 'v1', { layers: [layer] })
      await opened.store.delete([await keyOf(layer)])
      const { verdicts, progress } = await verify()
      assert.equal(verdicts.get(layer), 'missing')
      assert.equal(progress?.missing, 1)
      assert.equal(await isThere(layer), false)
      await pushBlob(opened.registry, NAME, bytes)
      assert.ok(await readsAs(layer, bytes))
      assert.equal((await verify()).progress?.missing, 0)
    })

    test('a blob that was wrongly found damaged is shown again by the next verification', async () => {
      const layer = await pushBlob(opened.registry, NAME)
      await verify({ stores: new Stores({ store: corrupting(await keyOf(layer)) }) })
      assert.equal(await isThere(layer), false)
      const { progress } = await verify()
      assert.equal(progress?.recovered, 1)
      assert.equal(await isThere(layer), true)
    })

    test('one wrong reading condemns nothing', async () => {
      const layer = await pushBlob(opened.registry, NAME)
      const wrong = corrupting(await keyOf(layer))
      let reads = 0
      const flaky: BlobStore = { ...store, read: (...args) => (reads++ === 0 ? wrong : store).read(...args) }
      assert.equal((await verify({ stores: new Stores({ store: flaky }) })).verdicts.get(layer), 'sound')
      assert.equal(reads, 2)
    })

    test('a store that fails condemns nothing, and the verification goes on where it was', async () => {
      const layers: Digest[] = []
      for (let count = 0; count < 3; count++) layers.push(await pushBlob(opened.registry, NAME))
      store.failing = 'read'
      await assert.rejects(verify(), { name: 'StoreUnavailable' })
      for (const layer of layers) assert.equal(await isThere(layer), true)
      store.failing = undefined
      assert.equal((await verify()).verdicts.size, 3)
    })

    test('a store in which nothing is found is taken for the wrong one', async () => {
      const layers: Digest[] = []
      for (let count = 0; count < 30; count++) layers.push(await pushBlob(opened.registry, NAME))
      const elsewhere = await withRegistry(index.db)
      try {
        await assert.rejects(
          verify({ stores: new Stores({ store: elsewhere.store }) }),
          /20 blobs in a row are not in the store/,
        )
      } finally {
        await elsewhere.close()
      }
      for (const layer of layers) assert.equal(await isThere(layer), true)
    })

    test('bytes that were replaced while they were read are not condemned for what they were', async () => {
      const layer = await pushBlob(opened.registry, NAME)
      const key = await keyOf(layer)
      const keyOfAnother = newKey()
      const replaced: BlobStore = {
        ...store,
        async *read() {
          await index.db.transaction(tx =>
            tx.query('update blob set storage_key = $2 where storage_key = $1', [key, keyOfAnother]),
          )
          yield Buffer.from('what another has replaced')
        },
      }
      assert.equal((await verify({ stores: new Stores({ store: replaced }) })).progress?.damaged, 0)
    })

    test('it reads no faster than it is allowed to', async () => {
      await pushBlob(opened.registry, NAME, randomBytes(1_000_000))
      let waited = 0
      await verify({
        bytesPerSecond: 1_000,
        delay(ms) {
          waited = Math.max(waited, ms)
          return Promise.resolve()
        },
      })
      // The clock goes on while it reads.
      assert.ok(waited > 500_000 && waited <= 1_000_000, `${waited} ms`)
    })
  },
)
