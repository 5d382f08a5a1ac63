import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { prunePullCounts } from '../../src/gc/prune-pulls.ts'
import type { Database } from '../../src/metadata/database.ts'
import type { Digest } from '../../src/oci/digest.ts'
import { parseName, parseReference } from '../../src/oci/name.ts'
import { PullCounts } from '../../src/registry/pull-counts.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { type TestRegistry, pushImage, withRegistry } from '../support/registry.ts'

const HOUR_MS = 3_600_000
const READER = { mayPush: false, principal: 'reader' }

void suite('pulls are counted beside the pull path', () => {
  let database: TestDatabase
  let counts: PullCounts
  let opened: TestRegistry
  const errors: unknown[] = []
  const countsOn = (db: Database, more: { limit?: number } = {}): PullCounts =>
    new PullCounts(db, {
      flushMs: HOUR_MS,
      ignored: ['robot+scanner'],
      onError: error => errors.push(error),
      ...more,
    })

  before(async () => {
    database = await withDatabase()
    counts = countsOn(database.db)
    opened = await withRegistry(database.db, { pulls: counts })
  })
  after(async () => {
    await opened.close()
    await database.close()
  })

  async function request(method: string, repository: string, reference: string, caller = READER): Promise<void> {
    const parsed = parseReference(reference)
    const manifest = await opened.registry.statManifest(parseName(repository), parsed, caller)
    opened.registry.countPull(manifest, parsed, method, caller)
  }

  const tagPulls = async (repository: string): Promise<Record<string, number>> =>
    Object.fromEntries(
      (
        await database.db.query<{ name: string; pulls: number }>(
          `select p.name, p.pulls from tag_pull p join repository r on r.id = p.repository_id where r.name = $1`,
          [repository],
        )
      ).map(row => [row.name, row.pulls]),
    )
  const manifestPulls = async (digest: Digest): Promise<number | undefined> =>
    (
      await database.db.query<{ pulls: number }>(
        'select p.pulls from manifest_pull p join manifest m on m.id = p.manifest_id where m.digest = $1',
        [digest],
      )
    )[0]?.pulls

  test('a pull by HEAD of the tag and GET of the digest counts once for the tag and once for the manifest (containerd, Docker engine)', async () => {
    const digest = await pushImage(opened.registry, 'pull/docker', 'v1')
    await request('HEAD', 'pull/docker', 'v1')
    await request('GET', 'pull/docker', digest)
    await counts.flush()
    assert.deepEqual(await tagPulls('pull/docker'), { v1: 1 })
    assert.equal(await manifestPulls(digest), 1)
  })

  test('a pull by GET of the tag counts for both, a HEAD by digest for neither (skopeo, podman)', async () => {
    const digest = await pushImage(opened.registry, 'pull/podman', 'v1')
    await request('HEAD', 'pull/podman', digest)
    await counts.flush()
    assert.deepEqual([await tagPulls('pull/podman'), await manifestPulls(digest)], [{}, undefined])
    await request('GET', 'pull/podman', 'v1')
    await counts.flush()
    assert.deepEqual([await tagPulls('pull/podman'), await manifestPulls(digest)], [{ v1: 1 }, 1])
  })

  test('pulls by those whom the settings name are not counted (ECR: role exclusions of the last recorded pull)', async () => {
    const digest = await pushImage(opened.registry, 'pull/scanned', 'v1')
    await request('GET', 'pull/scanned', 'v1', { mayPush: false, principal: 'robot+scanner' })
    await counts.flush()
    assert.deepEqual([await tagPulls('pull/scanned'), await manifestPulls(digest)], [{}, undefined])
  })

  test('nothing is written before the flush, and several processes add up', async () => {
    const digest = await pushImage(opened.registry, 'pull/sum', 'v1')
    const others = await Promise.all([database.another(), database.another()])
    const processes = [counts, ...others.map(db => countsOn(db))]
    const reference = parseReference('v1')
    const manifest = await opened.registry.statManifest(parseName('pull/sum'), reference, READER)
    for (const each of processes) {
      for (let pull = 0; pull < 5; pull++) each.count(manifest, reference, 'GET', undefined)
    }
    assert.deepEqual(await tagPulls('pull/sum'), {})
    await Promise.all(processes.map(each => each.flush()))
    assert.deepEqual([await tagPulls('pull/sum'), await manifestPulls(digest)], [{ v1: 15 }, 15])
  })

  test('what could not be written is reported, kept and written later', async () => {
    const digest = await pushImage(opened.registry, 'pull/outage', 'v1')
    let isDown = true
    const { db } = database
    const shaky = countsOn({
      driver: db.driver,
      query: (...args) => db.query(...args),
      transaction: work => (isDown ? Promise.reject(new Error('down')) : db.transaction(work)),
      changes: () => db.changes(),
      load: () => db.load(),
      close: () => db.close(),
    })
    const reference = parseReference('v1')
    shaky.count(
      await opened.registry.statManifest(parseName('pull/outage'), reference, READER),
      reference,
      'GET',
      undefined,
    )
    errors.length = 0
    await shaky.flush()
    assert.deepEqual(errors.map(String), ['Error: down'])
    isDown = false
    await shaky.flush()
    assert.equal(await manifestPulls(digest), 1)
  })

  test('memory is bounded: what finds no room is reported and not counted', async () => {
    const small = countsOn(database.db, { limit: 2 })
    errors.length = 0
    for (let id = 1; id <= 5; id++) {
      small.count({ id: 1_000_000 + id, repositoryId: 1 }, parseReference('v1'), 'GET', undefined)
    }
    await small.flush()
    assert.match(String(errors[0]), /3 pulls were not counted/)
    const rows = await database.db.query('select 1 as one from manifest_pull where manifest_id > 1000000')
    assert.equal(rows.length, 2)
  })

  test('counts of what has been gone for long are pruned, those of what is there are not', async () => {
    const digest = await pushImage(opened.registry, 'pull/pruned', 'v1')
    await request('GET', 'pull/pruned', 'v1')
    await counts.flush()
    await database.db.transaction(async tx => {
      await tx.query(`update tag_pull set last_pulled_at = now() - interval '91 days'`)
      await tx.query(`update manifest_pull set last_pulled_at = now() - interval '91 days'`)
    })
    await prunePullCounts(database.db)
    assert.deepEqual([await tagPulls('pull/pruned'), await manifestPulls(digest)], [{ v1: 1 }, 1])
    const rows = await database.db.query('select 1 as one from manifest_pull where manifest_id > 1000000')
    assert.equal(rows.length, 0)
  })
})
