import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, suite, test } from 'node:test'
import { checkQuotas, checkUsage, foldAllUsage } from '../../src/gc/usage.ts'
import type { Drift } from '../../src/metadata/usage-check.ts'
import { listUsage } from '../../src/metadata/usage.ts'
import { parseName } from '../../src/oci/name.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { PUSHER, type TestRegistry, pushBlob, pushImage, withRegistry } from '../support/registry.ts'
import { assertUsageIsTrue, setQuota } from '../support/usage.ts'
import { wrapDatabase } from '../support/wrapped-database.ts'

const DAY_MS = 86_400_000
const LIMIT = 1_000_000
const failed = (_repositoryId: number, error: unknown): never => {
  throw error
}

void suite('the check of what is counted', () => {
  let database: TestDatabase
  let rules: TestRegistry
  before(async () => {
    database = await withDatabase()
    rules = await withRegistry(database.db)
    for (const measure of ['logical', 'physical'] as const) await setQuota(database.db, 'team/**', LIMIT, measure)
    const layer = await pushBlob(rules.registry, 'team/a', randomBytes(5000))
    await pushImage(rules.registry, 'team/a', 'v1', { layers: [layer] })
    await pushImage(rules.registry, 'team/a', 'v2', { layers: [layer] })
    await rules.registry.mountBlob({ name: parseName('team/b'), digest: layer, from: undefined, visible: [] }, PUSHER)
  })
  after(async () => {
    await rules.close()
    await database.close()
  })

  const change = async (statement: string): Promise<void> =>
    await database.db.transaction(async tx => void (await tx.query(statement)))
  async function check(): Promise<readonly (Drift | number)[]> {
    const found: (Drift | number)[] = []
    await change('update repository_usage set checked_at = null')
    await change('update quota set checked_at = null')
    const onDrift = (drift: Drift): void => void found.push(drift)
    await checkUsage(database.db, {
      everyMs: DAY_MS,
      keepDays: 400,
      onDrift,
      onFailure: failed,
      pause: async () => undefined,
    })
    await foldAllUsage(database.db)
    await checkQuotas(database.db, DAY_MS, (_quota, bytes) => void found.push(bytes))
    return found
  }

  test('finds nothing where everything was counted, folded or not', async () => {
    assert.deepEqual(await check(), [])
    await pushImage(rules.registry, 'team/b', 'v1')
    assert.deepEqual(await check(), [])
  })

  test('looks at each repository once in its time, and not again before', async () => {
    const options = {
      everyMs: DAY_MS,
      keepDays: 400,
      onDrift: () => undefined,
      onFailure: failed,
      pause: async () => undefined,
    }
    await change('update repository_usage set checked_at = null')
    assert.equal(await checkUsage(database.db, options), 2)
    assert.equal(await checkUsage(database.db, options), 0)
  })

  test('goes on with the other repositories where one cannot be checked, and says so', async () => {
    await foldAllUsage(database.db)
    await change(`update repository_usage set counted_at = null, checked_at = null`)
    await change(`update quota set checked_at = null`)
    const [failing] = await database.db.query<{ id: number }>(`select id from repository where name = 'team/a'`)
    const slow = new Error('canceling statement due to statement timeout')
    const db = wrapDatabase(database.db, {
      transaction: work =>
        database.db.transaction(tx =>
          work({
            ...tx,
            script: text => tx.script(text),
            query: (text, values) => {
              if (text.includes('cross join (select count(*) as tags') && values?.[0] === failing?.id) throw slow
              return tx.query(text, values)
            },
          }),
        ),
    })
    const failures: unknown[] = []
    const options = {
      everyMs: DAY_MS,
      keepDays: 400,
      onDrift: () => undefined,
      onFailure: (repositoryId: number, error: unknown) => void failures.push([repositoryId, error]),
      pause: async () => undefined,
    }
    assert.equal(await checkUsage(db, options), 2)
    assert.deepEqual(failures, [[failing?.id, slow]])
    const rows = await database.db.query(
      `select r.name, u.counted_at is not null as counted, u.checked_at is not null as checked
         from repository_usage u join repository r on r.id = u.repository_id order by r.name`,
    )
    assert.deepEqual(rows, [
      { name: 'team/a', counted: false, checked: true },
      { name: 'team/b', counted: true, checked: true },
    ])
    // Once its time has come it is counted after all.
    await check()
    assert.deepEqual(await database.db.query('select from repository_usage where counted_at is null'), [])
  })

  const FAULTS: readonly (readonly [string, string])[] = [
    ['a counter that is too high', 'update repository_usage set blob_bytes = blob_bytes + 77, tags = tags + 1'],
    ['a counter that is too low', 'update repository_usage set manifests = manifests - 1, manifest_bytes = 0'],
    ['links that do not count though a manifest names them', 'update repository_blob set counted = false'],
    ['what is left of quotas', 'update quota_slot set free = free - 5 where slot = 3'],
    ['blobs of a physical quota', 'delete from quota_blob'],
    ['blobs that a physical quota counts too often', 'update quota_blob set links = links + 1'],
  ]
  for (const [what, statement] of FAULTS) {
    test(`finds and repairs ${what}`, async () => {
      await foldAllUsage(database.db)
      await change(statement)
      await check()
      // What a repair changes in one place may be the truth for the next.
      await check()
      await assertUsageIsTrue(database.db)
      assert.deepEqual(await check(), [])
    })
  }

  test('tells which repository was counted wrongly, and by how much', async () => {
    await foldAllUsage(database.db)
    await change(`update repository_usage set tags = tags - 3
                   where repository_id = (select id from repository where name = 'team/a')`)
    const none = { blobs: 0, blob_bytes: 0, manifests: 0, manifest_bytes: 0, uncounted: 0 }
    assert.deepEqual(await check(), [{ ...none, repository: 'team/a', tags: 3 }])
  })

  test('repositories forget a quota that was removed', async () => {
    await setQuota(database.db, 'team/a', LIMIT)
    await change(`delete from quota where pattern = 'team/a'`)
    await check()
    const [row] = await database.db.query<{ quotas: number[] }>(`select quotas from repository where name = 'team/a'`)
    assert.equal(row?.quotas.length, 2)
    await assertUsageIsTrue(database.db)
  })

  test('keeps a day of figures, from which growth is known', async () => {
    await change('delete from usage_day')
    await check()
    await change(`update usage_day set day = current_date - 8`)
    await pushBlob(rules.registry, 'team/a', randomBytes(700))
    const rows = await listUsage(database.db, { regex: '^team/a$', after: undefined, days: 7, limit: 10 })
    const [row] = rows
    assert.equal(rows.length, 1)
    assert.equal((row?.blob_bytes ?? 0) + (row?.manifest_bytes ?? 0) - (row?.former_bytes ?? 0), 700)
  })

  test('removes figures that are older than they are kept, but the last', async () => {
    await change('delete from usage_day')
    await change(`insert into usage_day select repository_id, current_date - d, 1, 1, 1
                    from repository_usage, unnest('{500,450,420,10}'::int[]) as d`)
    await check()
    const rows = await database.db.query<{ age: number }>(
      `select distinct current_date - day as age from usage_day where day < current_date order by 1`,
    )
    assert.deepEqual(
      rows.map(({ age }) => age),
      [10, 420],
    )
  })
})
