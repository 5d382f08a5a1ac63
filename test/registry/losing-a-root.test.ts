import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import type { Database } from '../../src/metadata/database.ts'
import type { Digest } from '../../src/oci/digest.ts'
import { parseName, parseReference } from '../../src/oci/name.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { PUSHER, type TestRegistry, pushImage, pushIndex, withRegistry } from '../support/registry.ts'

void suite('what a deletion leaves without a root', () => {
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

  const remove = async (name: string, reference: string): Promise<void> =>
    await rules.registry.deleteManifest(parseName(name), parseReference(reference), PUSHER)

  void test('deleting an index gives its children, and only them, a lease that ends (spec: Deleting Manifests)', async () => {
    const child = await pushImage(rules.registry, 'root/index', undefined)
    const other = await pushImage(rules.registry, 'root/index', 'other')
    const index = await pushIndex(rules.registry, 'root/index', 'index', [child])
    await findAllInUse(database.db)
    await remove('root/index', index)
    assert.deepEqual(await lasting(database.db, [child, other]), [false, true])
  })

  void test('deleting a subject gives its referrers a lease that ends (spec: Deleting Manifests)', async () => {
    const subject = await pushImage(rules.registry, 'root/subject', 'v1')
    const referrer = await pushImage(rules.registry, 'root/subject', undefined, { subject })
    await findAllInUse(database.db)
    await remove('root/subject', subject)
    assert.deepEqual(await lasting(database.db, [referrer]), [false])
  })

  void test('deleting or moving a tag gives its manifest a lease that ends, and its children keep their root', async () => {
    const child = await pushImage(rules.registry, 'root/tag', undefined)
    const index = await pushIndex(rules.registry, 'root/tag', 'v1', [child])
    await findAllInUse(database.db)
    await remove('root/tag', 'v1')
    assert.deepEqual(await lasting(database.db, [index, child]), [false, true])
    const former = await pushImage(rules.registry, 'root/tag', 'v2')
    await findAllInUse(database.db)
    await pushImage(rules.registry, 'root/tag', 'v2')
    assert.deepEqual(await lasting(database.db, [former]), [false])
  })
})

/** As the collector leaves what it found in use. */
async function findAllInUse(db: Database): Promise<void> {
  await db.transaction(async tx => void (await tx.query(`update manifest set lease_until = 'infinity'`)))
}

/** Whether each manifest is still taken to be in use. */
async function lasting(db: Database, digests: readonly Digest[]): Promise<(boolean | undefined)[]> {
  const rows = await db.query<{ digest: Digest; lasts: boolean }>(
    `select digest, lease_until = 'infinity' as lasts from manifest where digest = any($1::text[])`,
    [digests],
  )
  const byDigest = new Map(rows.map(row => [row.digest, row.lasts]))
  return digests.map(digest => byDigest.get(digest))
}
