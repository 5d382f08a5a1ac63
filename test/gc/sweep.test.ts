import assert from 'node:assert/strict'
import { after, afterEach, before, beforeEach, describe, it } from 'node:test'
import { purgeTrash } from '../../src/gc/purge.ts'
import { type SweepResult, sweep } from '../../src/gc/sweep.ts'
import type { Digest } from '../../src/oci/digest.ts'
import { parseName, parseReference } from '../../src/oci/name.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import {
  PUSHER,
  type TestRegistry,
  letTimePass,
  pushBlob,
  pushImage,
  pushIndex,
  withRegistry,
} from '../support/registry.ts'

const OPTIONS = { batch: 10, leaseMs: 3_600_000, trashGraceMs: 3_600_000 }
const REPOSITORY = 'team/app'
const name = parseName(REPOSITORY)
const NOBODY = { mayPush: false }

void describe('the sweep', () => {
  let index: TestDatabase
  let test: TestRegistry

  before(async () => {
    index = await withDatabase()
  })
  after(() => index.close())
  beforeEach(async () => {
    test = await withRegistry(index.db)
  })
  afterEach(() => test.close())

  /** Lets all time pass and collects, until a whole round finds nothing. */
  async function collectAll(): Promise<SweepResult> {
    let total = 0
    for (;;) {
      await letTimePass(index.db)
      const result = await sweep(index.db, OPTIONS, () => Promise.resolve())
      total += result.manifests + result.links + result.blobs
      if (result.manifests + result.links + result.blobs === 0) return { ...result, looked: total }
    }
  }

  const has = async (digest: Digest): Promise<boolean> =>
    await test.registry.statManifest(name, { digest }, { mayPush: false }).then(
      () => true,
      () => false,
    )
  const hasBlob = async (digest: Digest): Promise<boolean> =>
    await test.registry.statBlob(name, digest, { mayPush: false }).then(
      () => true,
      () => false,
    )
  const remove = async (reference: string): Promise<void> =>
    await test.registry.deleteManifest(name, parseReference(reference), PUSHER)

  it('keeps a tagged image with its layers, however much time passes', async () => {
    const layer = await pushBlob(test.registry, REPOSITORY)
    const image = await pushImage(test.registry, REPOSITORY, 'kept', { layers: [layer] })
    await collectAll()
    assert.deepEqual([await has(image), await hasBlob(layer)], [true, true])
  })

  it('takes an untagged image, its links and its bytes once their time is over, and not before', async () => {
    const layer = await pushBlob(test.registry, REPOSITORY)
    const image = await pushImage(test.registry, REPOSITORY, undefined, { layers: [layer] })
    await sweep(index.db, OPTIONS, () => Promise.resolve())
    assert.equal(await has(image), true)
    const { storage_key: key } = (
      await index.db.query<{ storage_key: string }>('select storage_key from blob where digest = $1', [layer])
    )[0] ?? { storage_key: '' }
    await collectAll()
    assert.deepEqual([await has(image), await hasBlob(layer)], [false, false])
    await letTimePass(index.db)
    await purgeTrash(index.db, test.store)
    assert.equal(await test.store.stat(key as never), undefined)
  })

  it('keeps the children of a tagged index and takes them after it (distribution #3178, #4461)', async () => {
    const child = await pushImage(test.registry, REPOSITORY, undefined)
    await pushIndex(test.registry, REPOSITORY, 'multi', [child])
    await collectAll()
    assert.equal(await has(child), true)
    await remove('multi')
    await collectAll()
    assert.equal(await has(child), false)
  })

  it('keeps the referrers of a living subject and takes them after it', async () => {
    const subject = await pushImage(test.registry, REPOSITORY, 'signed')
    const signature = await pushImage(test.registry, REPOSITORY, undefined, { subject })
    await collectAll()
    assert.equal(await has(signature), true)
    await remove('signed')
    await collectAll()
    assert.deepEqual([await has(subject), await has(signature)], [false, false])
  })

  it('keeps a layer that another image still names (distribution #4939)', async () => {
    const layer = await pushBlob(test.registry, REPOSITORY)
    await pushImage(test.registry, REPOSITORY, 'stays', { layers: [layer] })
    const going = await pushImage(test.registry, REPOSITORY, 'goes', { layers: [layer] })
    await remove(going)
    await collectAll()
    assert.deepEqual([await has(going), await hasBlob(layer)], [false, true])
  })

  it('keeps what an image whose tag moved names until its own time is over', async () => {
    const former = await pushImage(test.registry, REPOSITORY, 'moves')
    await collectAll()
    await pushImage(test.registry, REPOSITORY, 'moves')
    await sweep(index.db, OPTIONS, () => Promise.resolve())
    assert.equal(await has(former), true)
    await collectAll()
    assert.equal(await has(former), false)
  })

  it('keeps an image that was tagged for weeks for its whole retention when the tag moves, by digest, then takes it', async () => {
    const DAY_MS = 86_400_000
    const lifetimes = {
      leaseMs: DAY_MS,
      untaggedRetentionMs: 7 * DAY_MS,
      deleteGraceMs: DAY_MS,
      uploadExpiryMs: DAY_MS,
      trashGraceMs: DAY_MS,
    }
    const slow = await withRegistry(index.db, { lifetimes })
    const daysPass = async (days: number): Promise<void> => {
      await index.db.transaction(async tx => {
        for (const table of ['manifest', 'repository_blob']) {
          await tx.query(
            `update ${table} set lease_until = lease_until - $1 * interval '1 day' where lease_until < 'infinity'`,
            [days],
          )
        }
      })
      await sweep(index.db, { ...OPTIONS, leaseMs: DAY_MS }, () => Promise.resolve())
    }
    try {
      const layer = await pushBlob(slow.registry, 'weeks/app')
      const image = await pushImage(slow.registry, 'weeks/app', 'latest', { layers: [layer] })
      const repository = parseName('weeks/app')
      const pulls = async (): Promise<boolean> => {
        try {
          await slow.registry.readManifest(await slow.registry.statManifest(repository, { digest: image }, NOBODY))
          await slow.registry.statBlob(repository, layer, NOBODY)
          return true
        } catch {
          return false
        }
      }
      for (let week = 0; week < 3; week++) await daysPass(7)
      await pushImage(slow.registry, 'weeks/app', 'latest')
      for (const days of [1, 5.9]) {
        await daysPass(days)
        assert.equal(await pulls(), true)
      }
      await daysPass(0.2)
      assert.equal(await pulls(), false)
    } finally {
      await slow.close()
    }
  })

  it('keeps a blob that was reported present to a pusher a moment ago', async () => {
    const layer = await pushBlob(test.registry, REPOSITORY)
    await letTimePass(index.db)
    await test.registry.statBlob(name, layer, PUSHER)
    await sweep(index.db, OPTIONS, () => Promise.resolve())
    assert.equal(await hasBlob(layer), true)
  })

  it('keeps the bytes while any repository links them', async () => {
    const layer = await pushBlob(test.registry, REPOSITORY)
    const elsewhere = { name: parseName('other/app'), digest: layer, from: name, visible: [] }
    await test.registry.mountBlob(elsewhere, PUSHER)
    await pushImage(test.registry, 'other/app', 'uses-it', { layers: [layer] })
    await collectAll()
    assert.equal(await hasBlob(layer), false)
    assert.equal((await test.registry.statBlob(elsewhere.name, layer, PUSHER)).size, 64)
  })
})
