import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { postgresPrograms } from '../../scripts/postgres-programs.ts'
import { purgeTrash } from '../../src/gc/purge.ts'
import { sweep } from '../../src/gc/sweep.ts'
import { migrate } from '../../src/metadata/migrate.ts'
import { openPostgres } from '../../src/metadata/postgres.ts'
import { parseName, parseReference } from '../../src/oci/name.ts'
import { PUSHER, letTimePass, pushBlob, pushImage, pushIndex, withRegistry } from '../support/registry.ts'
import { createDatabase } from '../support/server.ts'
import { pullFault } from './model-pull.ts'

const REPOSITORY = 'team/app'
const OPTIONS = { batch: 100, leaseMs: 1, trashGraceMs: 3_600_000 }
const run = promisify(execFile)

const program = (name: string): string => join(postgresPrograms(), name)

async function newDatabase(): Promise<{ readonly url: string; drop(): Promise<void> }> {
  const database = await createDatabase()
  if (database === undefined) throw new Error('this needs Postgres: run it by scripts/with-postgres.ts')
  return database
}

void test('every image of a dump pulls from the store of today, though a collection ran since, within its grace (PostgreSQL, SQL Dump)', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'berth-test-restore-'))
  const original = await newDatabase()
  const restored = await newDatabase()
  const db = await openPostgres({ url: original.url })
  const opened = await migrate(db).then(() => withRegistry(db))
  try {
    const { registry, store } = opened
    const name = parseName(REPOSITORY)
    const shared = await pushBlob(registry, REPOSITORY)
    const tags = ['v1', 'v2', 'v3', 'multi'].map(text => parseReference(text))
    for (const tag of ['v1', 'v2', 'v3']) await pushImage(registry, REPOSITORY, tag, { layers: [shared] })
    await pushIndex(registry, REPOSITORY, 'multi', [await pushImage(registry, REPOSITORY, undefined)])
    const dump = join(directory, 'dump.sql')
    await run(program('pg_dump'), ['--no-owner', '--file', dump, original.url])

    for (const tag of tags) await registry.deleteManifest(name, tag, PUSHER)
    let collected = 0
    for (let round = 0; round < 4; round++) {
      await db.transaction(tx => tx.query(`update manifest set lease_until = 'epoch' where lease_until < 'infinity'`))
      await db.transaction(tx =>
        tx.query(`update repository_blob set lease_until = 'epoch' where lease_until < 'infinity'`),
      )
      collected += (await sweep(db, OPTIONS, () => Promise.resolve())).blobs
    }
    assert.equal(collected, 5, 'four configs and the layer')
    assert.equal((await purgeTrash(db, store)).purged, 0)
    await pushImage(registry, REPOSITORY, 'v1')

    await run(program('psql'), ['--quiet', '--set', 'ON_ERROR_STOP=1', '--file', dump, restored.url])
    const copy = await openPostgres({ url: restored.url })
    const before = await withRegistry(copy, { store })
    const faults = async (): Promise<readonly (string | undefined)[]> =>
      await Promise.all(tags.map(({ tag = assert.fail('no tag') }) => pullFault({ ...before, store }, name, tag)))
    try {
      assert.deepEqual(await faults(), [undefined, undefined, undefined, undefined])
      for (const tag of tags) assert.ok(await before.registry.statManifest(name, tag, PUSHER))
      // The grace is what it hangs on.
      await letTimePass(db)
      assert.equal((await purgeTrash(db, store)).purged, 5)
      assert.ok((await faults()).every(fault => fault?.includes('cannot be read')))
    } finally {
      await before.close()
      await copy.close()
    }
  } finally {
    await opened.close()
    await db.close()
    for (const database of [original, restored]) await database.drop()
    await rm(directory, { recursive: true, force: true })
  }
})
