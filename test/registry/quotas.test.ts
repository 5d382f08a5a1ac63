import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { after, afterEach, before, suite, test } from 'node:test'
import { drainRepositories } from '../../src/gc/drain.ts'
import { checkQuotas, leaveAllQuotas } from '../../src/gc/usage.ts'
import { hideManifest } from '../../src/metadata/manifests.ts'
import { leaveBatch, leaveQuotas, returnBatch } from '../../src/metadata/quota-leaving.ts'
import { hideRepository, lockRepository } from '../../src/metadata/repository-admin.ts'
import { NO_USAGE, insertUsage } from '../../src/metadata/usage.ts'
import { type Digest, parseDigest } from '../../src/oci/digest.ts'
import { RegistryError } from '../../src/oci/errors.ts'
import { parseName } from '../../src/oci/name.ts'
import { removeManifests } from '../../src/registry/usage.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { ADMIN, PUSHER, type TestRegistry, pushBlob, pushImage, withRegistry } from '../support/registry.ts'
import { assertUsageIsTrue, setQuota, usedOf } from '../support/usage.ts'

const KB = 1000

let database: TestDatabase
let rules: TestRegistry
before(async () => {
  database = await withDatabase()
  rules = await withRegistry(database.db)
})
after(async () => {
  await rules.close()
  await database.close()
})
// Whatever a test did, counters, quotas and stores must say what the rows say.
afterEach(async () => await assertUsageIsTrue(database.db))

const push = async (repository: string, bytes: number): Promise<Digest> =>
  await pushBlob(rules.registry, repository, randomBytes(bytes))
const used = async (pattern: string, measure?: string): Promise<number> => await usedOf(database.db, pattern, measure)
const isDenied = (error: unknown): boolean => error instanceof RegistryError && error.code === 'DENIED'
const remove = async (repository: string, digest: Digest): Promise<void> =>
  await rules.registry.deleteManifest(parseName(repository), { digest }, PUSHER)
const mount = async (repository: string, digest: Digest, from: string): Promise<boolean> =>
  await rules.registry.mountBlob({ name: parseName(repository), digest, from: parseName(from), visible: [] }, PUSHER)

void suite('quotas (403 DENIED: distribution-spec, Error Codes)', () => {
  test('what fills a quota exactly is taken, and one byte more is refused with the numbers', async () => {
    await setQuota(database.db, 'edge/**', 10 * KB)
    await push('edge/a', 6 * KB)
    await push('edge/b', 4 * KB)
    assert.equal(await used('edge/**'), 10 * KB)
    await assert.rejects(push('edge/c', 1), (error: unknown) => {
      assert.ok(error instanceof RegistryError)
      assert.equal(error.status, 403)
      const detail = { quota: 'edge/**', measure: 'logical', used: 10_000, reserved: 0, asked: 1, limit: 10_000 }
      assert.deepEqual(error.entries[0]?.detail, detail)
      assert.match(error.message, /10000 of 10000 logical bytes are used, and this needs 1/)
      return true
    })
    assert.equal(await used('edge/**'), 10 * KB)
  })

  test('of twenty pushes at once as many are taken as fit, to the byte', async () => {
    await setQuota(database.db, 'race/**', 11 * KB)
    const outcomes = await Promise.allSettled(Array.from({ length: 20 }, (_, i) => push(`race/r${i % 3}`, KB)))
    const refused = outcomes.filter(outcome => outcome.status === 'rejected')
    assert.ok(refused.every(({ reason }) => isDenied(reason)))
    assert.equal(outcomes.length - refused.length, 11)
    assert.equal(await used('race/**'), 11 * KB)
  })

  test('of images at once those that do not fit leave no tag and no byte behind', async () => {
    const layer = await push('images/a', KB)
    await setQuota(database.db, 'images/**', 5 * KB)
    const pushes = Array.from({ length: 20 }, (_, i) =>
      pushImage(rules.registry, 'images/a', `t${i}`, { layers: [layer] }),
    )
    const outcomes = await Promise.allSettled(pushes)
    const taken = outcomes.filter(({ status }) => status === 'fulfilled').length
    assert.ok(taken > 5 && taken < 20, `${taken} were taken`)
    const { items } = await rules.registry.listTags(parseName('images/a'), '', 100, PUSHER)
    assert.equal(items.length, taken)
    assert.ok((await used('images/**')) <= 5 * KB)
  })

  test('a deletion gives back at once what only its manifest named, also from over the limit', async () => {
    await setQuota(database.db, 'back/**', 20 * KB)
    const base = await push('back/a', 5 * KB)
    const own = await push('back/a', 6 * KB)
    const image = await pushImage(rules.registry, 'back/a', 'one', { layers: [base, own] })
    await pushImage(rules.registry, 'back/a', 'two', { layers: [base] })
    const before = await used('back/**')
    await setQuota(database.db, 'back/**', KB)
    await assert.rejects(push('back/a', 1), isDenied)
    await remove('back/a', image)
    const after = await used('back/**')
    assert.ok(before - after > 6 * KB && before - after < 7 * KB, `${before - after} bytes were given back`)
    await setQuota(database.db, 'back/**', after + 6 * KB)
    await push('back/a', 6 * KB)
  })

  test('pushing again what is there costs nothing, also where the quota is full', async () => {
    await setQuota(database.db, 'again/**', 20 * KB)
    const bytes = randomBytes(3 * KB)
    const layer = await pushBlob(rules.registry, 'again/a', bytes)
    const config = randomBytes(64)
    const manifest = JSON.stringify({
      schemaVersion: 2,
      config: { digest: await pushBlob(rules.registry, 'again/a', config), size: 64, mediaType: 'a/b' },
      layers: [{ digest: layer, size: bytes.byteLength, mediaType: 'a/b' }],
    })
    const image = {
      name: parseName('again/a'),
      reference: { tag: 'v1' as never },
      tags: [],
      contentType: 'application/vnd.oci.image.manifest.v1+json',
      bytes: Buffer.from(manifest),
    }
    await rules.registry.pushManifest(image, PUSHER)
    const full = await used('again/**')
    await setQuota(database.db, 'again/**', full)
    await rules.registry.pushManifest(image, PUSHER)
    await rules.registry.pushManifest({ ...image, reference: { tag: 'v2' as never } }, PUSHER)
    const name = parseName('again/a')
    const id = await rules.registry.startUpload(name, PUSHER, 'sha256', true)
    const { signal } = new AbortController()
    await rules.registry.finishUpload({ name, id }, layer, {
      stream: Readable.from([bytes]),
      start: undefined,
      length: bytes.byteLength,
      signal,
    })
    assert.equal(await mount('again/a', layer, 'again/a'), true)
    assert.equal(await used('again/**'), full)
  })

  test('a mount counts in its target; physical bytes are counted once for all repositories of the quota', async () => {
    await setQuota(database.db, 'mount/**', 5 * KB)
    await setQuota(database.db, 'mount/**', 50 * KB, 'physical')
    const layer = await push('mount/a', 2 * KB)
    const foreign = await push('elsewhere', 2 * KB)
    assert.equal(await mount('mount/b', layer, 'mount/a'), true)
    assert.equal(await used('mount/**'), 4 * KB)
    assert.equal(await used('mount/**', 'physical'), 2 * KB)
    await assert.rejects(mount('mount/a', foreign, 'elsewhere'), isDenied)
    await assert.rejects(rules.registry.statBlob(parseName('mount/a'), foreign, PUSHER), /BLOB_UNKNOWN|unknown/i)
    for (const repository of ['mount/a', 'mount/b'])
      await rules.registry.deleteBlob(parseName(repository), layer, PUSHER)
    assert.equal(await used('mount/**', 'physical'), 0)
  })

  test('one content under two algorithms is two blobs, as it is stored', async () => {
    await setQuota(database.db, 'twice/**', 5 * KB)
    const bytes = randomBytes(2 * KB)
    await pushBlob(rules.registry, 'twice/a', bytes)
    const name = parseName('twice/a')
    const digest = parseDigest(`sha512:${createHash('sha512').update(bytes).digest('hex')}`)
    const id = await rules.registry.startUpload(name, PUSHER, 'sha512')
    const { signal } = new AbortController()
    await rules.registry.finishUpload({ name, id }, digest, {
      stream: Readable.from([bytes]),
      start: undefined,
      signal,
    })
    assert.equal(await used('twice/**'), 4 * KB)
  })

  test('the narrowest of several quotas decides, and a refusal takes from none', async () => {
    await setQuota(database.db, 'nest/**', 100 * KB)
    await setQuota(database.db, 'nest/*', 100 * KB)
    await setQuota(database.db, 'nest/a', 3 * KB)
    await push('nest/a', 2 * KB)
    await assert.rejects(push('nest/a', 2 * KB), /the quota of nest\/a is exceeded/)
    for (const pattern of ['nest/**', 'nest/*', 'nest/a']) assert.equal(await used(pattern), 2 * KB)
  })

  test('a quota counts what was there before it, and repositories that are made after it', async () => {
    const image = await pushImage(rules.registry, 'old/a', 'v1', { layers: [await push('old/a', 3 * KB)] })
    await setQuota(database.db, 'old/**', 100 * KB)
    const before = await used('old/**')
    assert.ok(before > 3 * KB)
    await push('old/b', 3 * KB)
    assert.equal(await used('old/**'), before + 3 * KB)
    await remove('old/a', image)
    assert.equal(await used('old/**'), 3 * KB)
  })

  test('a quota that is set while twenty push misses none of them', async () => {
    const pushes = Array.from({ length: 20 }, (_, i) => push(`during/r${i % 7}`, KB))
    await Promise.all([
      setQuota(database.db, 'during/**', 100 * KB),
      setQuota(database.db, 'during/**', 90 * KB, 'physical'),
      ...pushes,
    ])
    assert.equal(await used('during/**'), 20 * KB)
    assert.equal(await used('during/**', 'physical'), 20 * KB)
  })

  test('a manifest that comes back counts again, with its blobs, and is refused where they do not fit', async () => {
    await setQuota(database.db, 'undo/**', 50 * KB)
    const layer = await push('undo/a', 4 * KB)
    const parts = { schemaVersion: 2, config: { digest: layer, size: 4 * KB, mediaType: 'a/b' }, layers: [] }
    const image = {
      name: parseName('undo/a'),
      reference: { tag: 'v1' as never },
      tags: [],
      contentType: 'application/vnd.oci.image.manifest.v1+json',
      bytes: Buffer.from(JSON.stringify(parts)),
    }
    const { digest } = await rules.registry.pushManifest(image, PUSHER)
    const full = await used('undo/**')
    await remove('undo/a', digest)
    assert.equal(await used('undo/**'), 0)
    await setQuota(database.db, 'undo/**', full - 1)
    await assert.rejects(rules.registry.pushManifest(image, PUSHER), isDenied)
    assert.equal(await used('undo/**'), 0)
    await setQuota(database.db, 'undo/**', full)
    await rules.registry.pushManifest(image, PUSHER)
    assert.equal(await used('undo/**'), full)
  })

  test('a repository that is deleted gives everything back at once, and counts again when it comes back', async () => {
    await setQuota(database.db, 'leave/**', 50 * KB)
    await setQuota(database.db, 'leave/**', 50 * KB, 'physical')
    await pushImage(rules.registry, 'leave/a', 'v1', { layers: [await push('leave/a', 4 * KB)] })
    const full = await used('leave/**')
    await rules.registry.deleteRepository(parseName('leave/a'), ADMIN)
    assert.equal(await used('leave/**'), 0)
    assert.equal(await used('leave/**', 'physical'), 0)
    await rules.registry.undeleteRepository({ name: parseName('leave/a'), id: undefined }, ADMIN)
    assert.equal(await used('leave/**'), full)
    assert.equal(await used('leave/**', 'physical'), full)
  })

  void suite('physical quotas are told in batches of a repository that is deleted, and of one that comes back', () => {
    const LINKS = 2_500
    const SIZE = 10
    const name = parseName('many/a')
    let id = 0

    /** Adds a repository with very many links, of which `many/b` has every tenth. */
    before(async () => {
      const shared = await push('many/a', SIZE)
      await mount('many/b', shared, 'many/a')
      await database.db.transaction(tx =>
        tx.script(`
          create temp table made on commit drop as
            with blobs as (
              insert into blob (digest, size, store, storage_key)
              select 'sha256:' || md5(n::text) || md5('many' || n), ${SIZE}, store, md5('key' || n)
                from generate_series(2, ${LINKS}) n, (select distinct store from blob) s returning id, digest, store)
            select * from blobs;
          insert into usage_delta (store, blobs, blob_bytes, settled)
            select store, 1, ${SIZE}, true from made;
          with links as (
            insert into repository_blob (repository_id, blob_id, digest, lease_until)
            select r.id, m.id, m.digest, 'infinity' from made m, repository r
             where r.name = 'many/a' or (r.name = 'many/b' and m.id % 10 = 0) returning repository_id)
          insert into usage_delta (repository_id, blobs, blob_bytes, settled)
            select repository_id, 1, ${SIZE}, true from links`),
      )
      id = (await rules.registry.describeRepository(name)).id
      await setQuota(database.db, 'many/**', 100 * KB)
      await setQuota(database.db, 'many/**', 100 * KB, 'physical')
    })

    const drifts = async (): Promise<readonly number[]> => {
      const found: number[] = []
      await database.db.transaction(tx => tx.script('update quota set checked_at = null'))
      await checkQuotas(database.db, 3_600_000, (_quota, bytes) => void found.push(bytes))
      return found
    }
    const batch = async (): Promise<boolean> => await database.db.transaction(tx => leaveBatch(tx, id))
    /** As the rules delete it, but that the process dies before it tells of any link. */
    const die = async (): Promise<void> =>
      await database.db.transaction(async tx => {
        await lockRepository(tx, name)
        await leaveQuotas(tx, id)
        await hideRepository(tx, id, undefined)
      })
    const undelete = async (): Promise<void> =>
      void (await rules.registry.undeleteRepository({ name, id: undefined }, ADMIN))

    test('logical bytes are given back in the deletion, physical ones by one batch after the other, and nothing drifts', async () => {
      const kept = await used('many/**')
      await die()
      assert.equal(await used('many/**'), kept - LINKS * SIZE)
      assert.equal(await used('many/**', 'physical'), LINKS * SIZE)
      assert.equal(await drainRepositories(database.db, 0, () => Promise.resolve()), 0, 'its drain waits')
      assert.equal(await batch(), true)
      const left = await used('many/**', 'physical')
      assert.ok(left < LINKS * SIZE && left > 0.6 * LINKS * SIZE, `${left} bytes are left after a batch`)
      assert.deepEqual(await drifts(), [])
      await leaveAllQuotas(database.db)
      assert.equal(await used('many/**', 'physical'), await used('many/**'))
      assert.equal(await batch(), false)
      await undelete()
      assert.deepEqual([await used('many/**'), await used('many/**', 'physical')], [kept, LINKS * SIZE])
    })

    test('it comes back while they are told, and after a return that was broken off', async () => {
      await die()
      await batch()
      await undelete()
      assert.equal(await used('many/**', 'physical'), LINKS * SIZE)
      await die()
      await leaveAllQuotas(database.db)
      for (let step = 0; step < 2; step += 1) await database.db.transaction(tx => returnBatch(tx, id))
      assert.deepEqual(await drifts(), [])
      assert.equal(await batch(), false, 'who brings it back is not undone')
      await database.db.transaction(tx => tx.script('update repository set returning_until = now()'))
      assert.equal(await batch(), true)
      await undelete()
      assert.equal(await used('many/**', 'physical'), LINKS * SIZE)
    })

    test('a quota that is made while it is deleted counts it when it comes back', async () => {
      await die()
      await batch()
      await setQuota(database.db, 'many/*', 100 * KB, 'physical')
      await undelete()
      assert.equal(await used('many/*', 'physical'), LINKS * SIZE)
      assert.equal(await used('many/**', 'physical'), LINKS * SIZE)
    })

    test('links that stopped to count just before are told of once', async () => {
      const layer = await push('many/a', KB)
      const image = await pushImage(rules.registry, 'many/a', 'v1', { layers: [layer] })
      await database.db.transaction(async tx => {
        const [row] = await tx.query<{ id: number; size: number }>('select id, size from manifest where digest = $1', [
          image,
        ])
        assert.ok(row)
        await hideManifest(tx, row.id, 3_600_000)
        await tx.query('delete from tag where manifest_id = $1', [row.id])
        await insertUsage(tx, id, { ...NO_USAGE, tags: -1 })
        await removeManifests(tx, id, [row])
      })
      await die()
      while (await batch());
      assert.deepEqual(await drifts(), [])
      await undelete()
      assert.deepEqual(await drifts(), [])
    })
  })

  test('a damaged blob can be pushed again where the quota is full: it counts already', async () => {
    await setQuota(database.db, 'mend/**', 10 * KB)
    const bytes = randomBytes(10 * KB)
    const digest = await pushBlob(rules.registry, 'mend/a', bytes)
    const name = parseName('mend/a')
    const body = () => ({
      stream: Readable.from([bytes]),
      start: undefined,
      length: bytes.byteLength,
      signal: new AbortController().signal,
    })
    const damage = async (): Promise<void> =>
      void (await database.db.transaction(tx =>
        tx.query('update blob set damaged_at = clock_timestamp() where digest = $1', [digest]),
      ))
    await damage()
    const chunked = { name, id: await rules.registry.startUpload(name, PUSHER) }
    await rules.registry.appendUpload(chunked, body())
    await rules.registry.finishUpload(chunked, digest, undefined)
    assert.equal((await rules.registry.statBlob(name, digest, PUSHER)).size, bytes.byteLength)

    await damage()
    const whole = { name, id: await rules.registry.startUpload(name, PUSHER) }
    await rules.registry.finishUpload(whole, digest, body())
    assert.equal((await rules.registry.statBlob(name, digest, PUSHER)).size, bytes.byteLength)
    assert.equal(await used('mend/**'), 10 * KB)
    await assert.rejects(rules.registry.startUpload(name, PUSHER), isDenied)
  })

  test('what is being sent is reserved: another upload that does not fit beside it is refused before its bytes', async () => {
    await setQuota(database.db, 'soft/**', 10 * KB)
    const name = parseName('soft/a')
    const slow = { name, id: await rules.registry.startUpload(name, PUSHER) }
    const late = { name, id: await rules.registry.startUpload(name, PUSHER) }
    const gone = new AbortController()
    const stream = new Readable({ read() {} })
    const sending = rules.registry.appendUpload(slow, { stream, start: undefined, length: 8 * KB, signal: gone.signal })
    sending.catch(() => undefined)
    await reserved(8 * KB)
    const body = (bytes: number) => ({
      stream: Readable.from([randomBytes(bytes)]),
      start: undefined,
      length: bytes,
      signal: new AbortController().signal,
    })
    await assert.rejects(
      rules.registry.appendUpload(late, body(3 * KB)),
      /8000 more are being sent, and this needs 3000/,
    )
    gone.abort(new Error('the client is gone'))
    stream.destroy()
    await assert.rejects(sending)
    await rules.registry.appendUpload(late, body(3 * KB))
    assert.equal(await used('soft/**'), 0, 'nothing counts before it is a blob of the repository')
  })

  async function reserved(bytes: number): Promise<void> {
    const deadline = Date.now() + 60_000
    for (;;) {
      const rows = await database.db.query('select id from upload where reserved = $1', [bytes])
      if (rows.length > 0) return
      assert.ok(Date.now() < deadline, 'nothing was reserved')
    }
  }
})
