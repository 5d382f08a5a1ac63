import assert from 'node:assert/strict'
import { cp, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { checkQuotas, checkUsage, foldAllUsage } from '../../src/gc/usage.ts'
import { migrate } from '../../src/metadata/migrate.ts'
import { countQuotas, findQuota } from '../../src/metadata/quotas.ts'
import { discountHiddenLinks } from '../../src/metadata/usage-check.ts'
import { type UsageRow, listUsage } from '../../src/metadata/usage.ts'
import { type TestDatabase, withEmptyDatabase } from '../support/database.ts'
import { assertUsageIsTrue, setQuota } from '../support/usage.ts'

const MIGRATIONS = fileURLToPath(new URL('../../migrations/', import.meta.url))
const DAY_MS = 86_400_000

void suite('an index from before usage was counted', () => {
  let index: TestDatabase
  before(async () => {
    index = await withEmptyDatabase()
    const former = await mkdtemp(join(tmpdir(), 'berth-test-former-'))
    try {
      for (const file of await readdir(MIGRATIONS)) {
        if (file < '0006') await cp(join(MIGRATIONS, file), join(former, file))
      }
      await migrate(index.db, pathToFileURL(`${former}/`))
    } finally {
      await rm(former, { recursive: true })
    }
    // Two repositories with three blobs each: one of an image, one of a deleted image, one of none.
    await index.db.transaction(tx =>
      tx.script(`
        insert into repository (name) values ('team/a'), ('team/b');
        insert into blob (digest, size, store, storage_key)
          select 'sha256:' || n, 100 * n, 'filesystem', 'key' || n from generate_series(1, 3) n;
        insert into repository_blob (repository_id, blob_id, digest, lease_until)
          select r.id, b.id, b.digest, 'infinity' from repository r, blob b;
        insert into manifest (repository_id, digest, media_type, size, payload, lease_until, deleted_at)
          select r.id, 'sha256:m' || n, 'm', 5, '12345', 'infinity', case n when 2 then now() end
            from repository r, generate_series(1, 2) n;
        insert into manifest_blob (manifest_id, repository_id, digest, blob_id)
          select m.id, m.repository_id, l.digest, l.blob_id from manifest m
            join repository_blob l on l.repository_id = m.repository_id and 'sha256:m' || l.blob_id = m.digest;
        insert into tag (repository_id, name, manifest_id)
          select repository_id, 'v1', id from manifest where deleted_at is null`),
    )
    await migrate(index.db)
  })
  after(() => index.close())

  const usage = async (): Promise<readonly UsageRow[]> =>
    await listUsage(index.db, { regex: '^team/', after: undefined, days: 7, limit: 10 })

  test('is counted after the migration, in the background, and is said not to be counted until then', async () => {
    const counted = (rows: readonly UsageRow[]): readonly (readonly [string, boolean])[] =>
      rows.map(row => [row.name, row.counted_at !== null] as const)
    assert.deepEqual(counted(await usage()), [
      ['team/a', false],
      ['team/b', false],
    ])
    for (const measure of ['logical', 'physical'] as const) {
      await setQuota(index.db, 'team/**', 10_000, measure)
      const quota = await findQuota(index.db, 'team/**', measure)
      assert.equal(quota?.counted_at, null, 'nor is a quota')
    }
    // What ends to count meanwhile is not given back to quotas that were never told of it.
    const [first] = await index.db.query<{ id: number }>(`select id from repository where name = 'team/a'`)
    await index.db.transaction(tx => discountHiddenLinks(tx, first?.id ?? 0))
    await foldAllUsage(index.db)
    for (const measure of ['logical', 'physical'] as const) {
      assert.equal((await findQuota(index.db, 'team/**', measure))?.used_bytes, 0, measure)
    }
    const drifts: unknown[] = []
    const options = {
      everyMs: DAY_MS,
      keepDays: 400,
      onDrift: (drift: unknown) => void drifts.push(drift),
      onFailure: (_repositoryId: number, error: unknown) => void drifts.push(error),
      pause: () => Promise.resolve(),
    }
    // A process that ends after the first is followed by another.
    const stopped = new Error('stopped')
    await assert.rejects(checkUsage(index.db, { ...options, pause: () => Promise.reject(stopped) }), stopped)
    await countQuotas(index.db)
    assert.equal((await findQuota(index.db, 'team/**', 'logical'))?.counted_at, null)
    assert.equal(await checkUsage(index.db, options), 1)
    await countQuotas(index.db)
    await assertUsageIsTrue(index.db)
    const rows = await usage()
    assert.deepEqual(
      rows.map(row => [row.name, row.blob_bytes, row.manifest_bytes, row.tags, row.counted_at !== null]),
      [
        ['team/a', 400, 5, 1, true],
        ['team/b', 400, 5, 1, true],
      ],
    )
    for (const [measure, bytes] of [
      ['logical', 810],
      ['physical', 410],
    ] as const) {
      const quota = await findQuota(index.db, 'team/**', measure)
      assert.deepEqual([quota?.used_bytes, quota?.counted_at !== null], [bytes, true])
    }
    await checkQuotas(index.db, 0, (_quota, bytes) => void drifts.push(bytes))
    assert.deepEqual(drifts, [], 'counting for the first time repairs nothing')
  })
})
