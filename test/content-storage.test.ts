import assert from 'node:assert/strict'
import { copyFile, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, suite, test } from 'node:test'
import { loadConfig } from '../src/config.ts'
import { type ContentStorage, openContentStorage } from '../src/content-storage.ts'
import type { Job } from '../src/jobs/schedule.ts'
import { createLog } from '../src/log.ts'
import type { Database } from '../src/metadata/database.ts'
import { createMetrics } from '../src/metrics/metrics.ts'
import type { Digest } from '../src/oci/digest.ts'
import { type TestDatabase, testDriver, withDatabase } from './support/database.ts'
import { upkeepJobs } from '../src/upkeep.ts'
import { letTimePass, pushBlob, withRegistry } from './support/registry.ts'
import { strays } from './support/moving.ts'

const log = createLog({ level: 'silent', format: 'json' })
const { signal } = new AbortController()

/** A store as the registry has it open, with the jobs that delete in it. */
interface OpenContent extends ContentStorage {
  readonly disposal: readonly Job[]
  readonly metrics: string
}

void suite('a copy of the index that is pointed at the store of the registry it was copied from', () => {
  let work: string
  let production: TestDatabase
  let staging: TestDatabase
  const opened: AsyncDisposableStack[] = []

  beforeEach(async () => {
    work = await mkdtemp(join(tmpdir(), 'berth-test-content-'))
    ;[production, staging] = await Promise.all([withDatabase(), withDatabase()])
  })
  afterEach(async () => {
    for (const stack of opened.splice(0)) await stack.disposeAsync()
    await Promise.all([production.close(), staging.close()])
    await rm(work, { recursive: true, force: true })
  })

  /** Opens the one store as the registry with that data directory does at its start. */
  async function open(db: Database, dataDir: string): Promise<OpenContent> {
    const config = loadConfig(
      {
        BERTH_DATA_DIR: join(work, dataDir),
        BERTH_STORAGE_FILESYSTEM_DIRECTORY: join(work, 'store'),
        BERTH_STORAGE_RECONCILE: '1d',
        BERTH_REGISTRY_UPLOAD_EXPIRY: '1ms',
        BERTH_REGISTRY_TRASH_GRACE: '1ms',
        BERTH_REGISTRY_ALLOW_SHORT_GRACE: 'true',
      },
      work,
    )
    await mkdir(config.data.dir, { recursive: true })
    const metrics = createMetrics('test')
    const stack = new AsyncDisposableStack()
    opened.push(stack)
    const content = await openContentStorage(config, db, metrics, log, stack)
    const jobs = upkeepJobs({ config, db, content, metrics: metrics.collection, log })
    const disposal = jobs.filter(({ name }) => /^(?:purge|reconcile)/.test(name))
    assert.equal(disposal.length, 2)
    return { ...content, disposal, metrics: await metrics.render() }
  }

  /** A blob in the registry, and the same row in the copy, where it is in the trash and due. */
  async function blobThatTheCopyGaveUp(content: ContentStorage): Promise<Digest> {
    const rules = await withRegistry(production.db, { stores: content.stores })
    const digest = await pushBlob(rules.registry, 'team/app')
    await rules.close()
    const [row] = await production.db.query<{ store: string; storage_key: string }>('select * from blob')
    await staging.db.query(
      `insert into trash (store, storage_key, purge_after) values ($1, $2, now() - interval '1 hour')`,
      [row?.store, row?.storage_key],
    )
    return digest
  }

  async function deleteAll({ disposal }: OpenContent): Promise<void> {
    for (const { run } of disposal) await run(signal)
  }

  const isThere = async ({ stores }: ContentStorage): Promise<boolean> =>
    (await strays(production.db, stores.first)).found === 1

  test('purges and reconciles nothing when it was restored from a dump, says so, and goes on to serve', async () => {
    const ours = await open(production.db, 'production')
    await blobThatTheCopyGaveUp(ours)
    const copy = await open(staging.db, 'staging')
    await deleteAll(copy)

    assert.ok(await isThere(ours))
    assert.deepEqual(await staging.db.query('select count(*) from trash'), [{ count: 1 }])
    const { isReady, notes } = await copy.readiness()
    assert.equal(isReady, true)
    assert.match(notes.join(), /the store filesystem belongs to another registry, .* until berth storage adopt/)
    assert.match(copy.metrics, /^berth_store_owned\{store="filesystem"\} 0$/m)
    assert.match(ours.metrics, /^berth_store_owned\{store="filesystem"\} 1$/m)
    assert.deepEqual(await ours.readiness(), { isReady: true, notes: [] })
    assert.equal(await copy.control.ownership('filesystem'), 'foreign')
  })

  test('does not even when the files of index and identity were copied whole', async () => {
    const first = await open(production.db, 'production')
    await blobThatTheCopyGaveUp(first)
    // Everything that tells the two apart but the stamp of the last start.
    await staging.db.query('delete from store_claim')
    const claims = await production.db.query<{ stamp: string }>('select stamp from store_claim')
    await staging.db.query(`insert into store_claim (store, stamp, settled_at) values ('filesystem', $1, now())`, [
      claims[0]?.stamp,
    ])
    if (testDriver === 'embedded') {
      await mkdir(join(work, 'staging'))
      await copyFile(join(work, 'production', 'index.id'), join(work, 'staging', 'index.id'))
    }
    const copy = await open(staging.db, 'staging')
    await deleteAll(copy)
    await deleteAll(first)
    await deleteAll(copy)
    assert.ok(await isThere(first))
  })

  test('deletes what it gave up once an administrator has said that the store is its', async () => {
    const ours = await open(production.db, 'production')
    await blobThatTheCopyGaveUp(ours)
    const copy = await open(staging.db, 'staging')
    await copy.control.adopt()
    assert.deepEqual(await copy.readiness(), { isReady: true, notes: [] })
    await deleteAll(ours)
    assert.ok(await isThere(ours))
    assert.match((await ours.readiness()).notes.join(), /another registry/)
    await deleteAll(copy)
    assert.equal(await isThere(ours), false)
  })

  test('the registry itself deletes again after a restart, as soon as a copy would have objected', async () => {
    const first = await open(production.db, 'production')
    await blobThatTheCopyGaveUp(first)
    await production.db.query('delete from repository_blob')
    await production.db.query(
      `with gone as (delete from blob returning store, storage_key)
       insert into trash (store, storage_key, purge_after) select store, storage_key, now() from gone`,
    )
    await letTimePass(production.db)
    const restarted = await open(production.db, 'production')
    assert.deepEqual(await restarted.readiness(), { isReady: true, notes: [] })
    await deleteAll(restarted)
    assert.ok(await isThere(first))
    await production.db.query(`update store_claim set settled_at = now() - interval '1 second'`)
    await deleteAll(restarted)
    assert.equal(await isThere(first), false)
  })
})
