import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { drainRepositories } from '../../src/gc/drain.ts'
import { sweep } from '../../src/gc/sweep.ts'
import type { Digest } from '../../src/oci/digest.ts'
import { listDue } from '../../src/metadata/collection-queue.ts'
import { RegistryError } from '../../src/oci/errors.ts'
import { parseName, parseReference, parseTag } from '../../src/oci/name.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { assertUsageIsTrue } from '../support/usage.ts'
import {
  ADMIN,
  PUSHER,
  type TestRegistry,
  letTimePass,
  pushBlob,
  pushImage,
  pushIndex,
  withRegistry,
} from '../support/registry.ts'

const HOUR_MS = 3_600_000
const goOn = (): Promise<void> => Promise.resolve()

void suite('a repository', () => {
  let database: TestDatabase
  let rules: TestRegistry
  before(async () => {
    database = await withDatabase()
    rules = await withRegistry(database.db)
  })
  after(async () => {
    await rules.close()
    await assertUsageIsTrue(database.db)
    await database.close()
  })

  const remove = async (repository: string): Promise<void> =>
    await rules.registry.deleteRepository(parseName(repository), ADMIN)
  const undelete = async (repository: string, id?: number): Promise<{ id: number }> =>
    await rules.registry.undeleteRepository({ name: parseName(repository), id }, ADMIN)
  const pulled = async (repository: string, reference: string): Promise<Digest | undefined> => {
    try {
      const name = parseName(repository)
      return (await rules.registry.statManifest(name, parseReference(reference), PUSHER)).digest
    } catch (error) {
      if (error instanceof RegistryError && error.code === 'MANIFEST_UNKNOWN') return undefined
      throw error
    }
  }
  const refused = async (work: Promise<unknown>, code: string): Promise<void> =>
    await assert.rejects(work, (error: unknown) => {
      assert.ok(error instanceof RegistryError, String(error))
      assert.equal(error.code, code)
      return true
    })
  const rowsOf = async (repositoryId: number): Promise<number> => {
    const [row] = await database.db.query<{ count: number }>(
      `select ((select count(*) from tag where repository_id = $1)
             + (select count(*) from tag_history where repository_id = $1)
             + (select count(*) from manifest where repository_id = $1)
             + (select count(*) from repository_blob where repository_id = $1)
             + (select count(*) from upload where repository_id = $1)
             + (select count(*) from repository where id = $1))::int as count`,
      [repositoryId],
    )
    return row?.count ?? 0
  }

  test('that is deleted is gone at once, and comes back whole: tags, index, children, referrers, blobs and history', async () => {
    const layer = await pushBlob(rules.registry, 'whole/app')
    const child = await pushImage(rules.registry, 'whole/app', undefined, { layers: [layer] })
    const index = await pushIndex(rules.registry, 'whole/app', 'v1', [child])
    await pushImage(rules.registry, 'whole/app', undefined, { subject: index })
    const name = parseName('whole/app')
    const before = await rules.registry.describeRepository(name)
    await remove('whole/app')
    assert.equal(await pulled('whole/app', 'v1'), undefined)
    await refused(rules.registry.statBlob(name, layer, PUSHER), 'BLOB_UNKNOWN')
    await refused(rules.registry.listTags(name, '', 10, PUSHER), 'NAME_UNKNOWN')
    await refused(rules.registry.describeRepository(name), 'NAME_UNKNOWN')
    assert.deepEqual(await undelete('whole/app'), { id: before.id })
    assert.deepEqual(await rules.registry.describeRepository(name), before)
    assert.deepEqual([before.tags, before.manifests], [1, 3])
    assert.deepEqual([await pulled('whole/app', 'v1'), await pulled('whole/app', child)], [index, child])
    assert.equal((await rules.registry.statBlob(name, layer, PUSHER)).size, 64)
    const history = await rules.registry.listTagHistory({ name, tag: parseTag('v1') }, { last: undefined, limit: 9 })
    assert.equal(history.items.length, 1)
  })

  test('keeps its content through collections while it can come back', async () => {
    const image = await pushImage(rules.registry, 'kept/app', 'v1')
    await remove('kept/app')
    for (let round = 0; round < 3; round += 1) {
      await letTimePass(database.db)
      await sweep(database.db, { batch: 100, leaseMs: HOUR_MS, trashGraceMs: HOUR_MS }, goOn)
    }
    assert.equal(await drainRepositories(database.db, HOUR_MS, goOn), 0)
    await undelete('kept/app')
    assert.equal(await pulled('kept/app', 'v1'), image)
  })

  test('comes back with what a collection would have taken of a living one: untagged images, referrers, loose blobs', async () => {
    const name = parseName('loose/app')
    const tagged = await pushImage(rules.registry, 'loose/app', 'v1')
    const untagged = await pushImage(rules.registry, 'loose/app', undefined)
    const orphan = await pushImage(rules.registry, 'loose/app', undefined, { subject: untagged })
    const loose = await pushBlob(rules.registry, 'loose/app')
    const deleted = await pushImage(rules.registry, 'loose/app', 'v2')
    await rules.registry.deleteManifest(name, parseReference(deleted), PUSHER)
    await remove('loose/app')
    for (let round = 0; round < 3; round += 1) {
      await letTimePass(database.db)
      await sweep(database.db, { batch: 2, leaseMs: HOUR_MS, trashGraceMs: HOUR_MS }, goOn)
    }
    const due = await Promise.all((['manifest', 'link'] as const).map(kind => listDue(database.db, kind, '', 100)))
    assert.deepEqual(due.flat(), [], 'a dry run says the same')
    await undelete('loose/app')
    for (const digest of [tagged, untagged, orphan]) assert.equal(await pulled('loose/app', digest), digest)
    assert.equal((await rules.registry.statBlob(name, loose, PUSHER)).size, 64)
    await rules.registry.undeleteManifest(name, deleted, ADMIN)
    assert.equal(await pulled('loose/app', 'v2'), deleted)
    await remove('loose/app')
    assert.ok((await drainRepositories(database.db, 0, goOn)) >= 1, 'and nothing holds up the end of its grace')
  })

  test('frees its name at once, and does not come back over another of that name', async () => {
    const old = await pushImage(rules.registry, 'twice/app', 'v1')
    const { id } = await rules.registry.describeRepository(parseName('twice/app'))
    await remove('twice/app')
    const young = await pushImage(rules.registry, 'twice/app', 'v1')
    assert.equal(await pulled('twice/app', old), undefined)
    await refused(undelete('twice/app'), 'CONFLICT')
    await remove('twice/app')
    await undelete('twice/app', id)
    assert.equal(await pulled('twice/app', 'v1'), old)
    await remove('twice/app')
    // The one that was deleted last comes back without an id: that is the old one again.
    await undelete('twice/app')
    assert.equal(await pulled('twice/app', 'v1'), old)
    assert.equal(await pulled('twice/app', young), undefined)
  })

  test('is listed with how long it is kept, by the names the caller sees', async () => {
    await pushImage(rules.registry, 'listed/a', 'v1')
    await pushImage(rules.registry, 'listed/b', 'v1')
    await remove('listed/b')
    const visible = [['^listed/.*$']]
    const living = await rules.registry.listRepositories(visible, { last: '', limit: 10 })
    assert.deepEqual(
      living.items.map(({ name }) => name),
      ['listed/a'],
    )
    const deleted = await rules.registry.listDeletedRepositories(visible, { last: 0, limit: 10 })
    assert.deepEqual(
      deleted.items.map(({ name, deletedBy }) => [name, deletedBy]),
      [['listed/b', 'admin']],
    )
    const [item] = deleted.items
    assert.equal((item?.keptUntil.getTime() ?? 0) - (item?.deletedAt.getTime() ?? 0), HOUR_MS)
    assert.deepEqual((await rules.registry.listDeletedRepositories([[]], { last: 0, limit: 10 })).items, [])
  })

  test('is drained after its grace, in batches, with its uploads; from then on it cannot come back', async () => {
    await drainRepositories(database.db, 0, goOn)
    const layer = await pushBlob(rules.registry, 'drained/app')
    const child = await pushImage(rules.registry, 'drained/app', 'child', { layers: [layer] })
    await pushIndex(rules.registry, 'drained/app', 'v1', [child])
    const name = parseName('drained/app')
    await rules.registry.startUpload(name, PUSHER)
    const { id } = await rules.registry.describeRepository(name)
    await remove('drained/app')
    assert.equal(await drainRepositories(database.db, HOUR_MS, goOn), 0)
    let pauses = 0
    const stopped = new Error('stopped')
    const stop = async (): Promise<void> => {
      pauses += 1
      throw stopped
    }
    // What a process leaves that ends in the middle is taken up by the next run.
    await assert.rejects(drainRepositories(database.db, 0, stop), stopped)
    assert.ok((await rowsOf(id)) > 0)
    await refused(undelete('drained/app'), 'NOT_FOUND')
    assert.ok((await drainRepositories(database.db, 0, goOn)) >= 1)
    assert.equal(pauses, 1)
    assert.equal(await rowsOf(id), 0)
    await refused(undelete('drained/app'), 'NOT_FOUND')
    await sweep(database.db, { batch: 100, leaseMs: HOUR_MS, trashGraceMs: HOUR_MS }, goOn)
    assert.deepEqual(await database.db.query('select from blob where digest = $1', [layer]), [])
    assert.equal((await database.db.query('select from trash where digest = $1', [layer])).length, 1)
  })

  // https://github.com/goharbor/harbor/issues/23116: a layer that a second repository uses goes with the first.
  test('leaves a layer that another repository mounted from it', async () => {
    const layer = await pushBlob(rules.registry, 'source/app')
    await pushImage(rules.registry, 'source/app', 'v1', { layers: [layer] })
    const mount = { name: parseName('target/app'), digest: layer, from: parseName('source/app'), visible: [] }
    assert.equal(await rules.registry.mountBlob(mount, PUSHER), true)
    await remove('source/app')
    await drainRepositories(database.db, 0, goOn)
    await sweep(database.db, { batch: 100, leaseMs: HOUR_MS, trashGraceMs: HOUR_MS }, goOn)
    const image = await pushImage(rules.registry, 'target/app', 'v1', { layers: [layer] })
    assert.equal(await pulled('target/app', 'v1'), image)
    assert.equal((await rules.registry.statBlob(mount.name, layer, PUSHER)).size, 64)
  })

  test('that is deleted is no source of a mount, and takes no upload that began before', async () => {
    const layer = await pushBlob(rules.registry, 'closed/app')
    const name = parseName('closed/app')
    const upload = await rules.registry.startUpload(name, PUSHER)
    await remove('closed/app')
    const mount = { name: parseName('other/app'), digest: layer, from: name, visible: [] }
    assert.equal(await rules.registry.mountBlob(mount, PUSHER), false)
    await refused(rules.registry.uploadStatus({ name, id: upload }), 'BLOB_UPLOAD_UNKNOWN')
  })
})
