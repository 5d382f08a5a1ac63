import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { type WalkCursor, type WalkProgress, walkIndex } from '../../src/gc/consistency.ts'
import { sweepBlobs, sweepLinks, sweepManifests } from '../../src/gc/sweep.ts'
import { takeTurn } from '../../src/gc/work.ts'
import type { Database, Transaction } from '../../src/metadata/database.ts'
import * as rows from '../../src/metadata/sweep.ts'
import { parseName } from '../../src/oci/name.ts'
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

void describe('two processes that sweep at once lose sight of nothing (PostgreSQL, Read Committed Isolation Level)', () => {
  let index: TestDatabase
  let other: Database
  let test: TestRegistry

  before(async () => {
    index = await withDatabase()
    other = await index.another()
    test = await withRegistry(index.db)
  })
  after(async () => {
    await test.close()
    await index.close()
  })

  /** One process judges, in `work`; before it commits, the other sweeps manifests. */
  async function whileOtherSweeps(work: (tx: Transaction) => Promise<unknown>): Promise<void> {
    await index.db.transaction(async tx => {
      await work(tx)
      await sweepManifests(other, OPTIONS)
    })
  }

  /** Manifests, links and blobs that no sweep will ever look at again, though nothing keeps them. */
  async function lost(): Promise<readonly object[]> {
    return await index.db.query(
      `select digest from manifest m where lease_until = 'infinity'
          and not exists (select from tag t where t.manifest_id = m.id)
          and not exists (select from manifest_child e where e.child_digest = m.digest)
       union all
       select digest from repository_blob l where lease_until = 'infinity'
          and not exists (select from manifest_blob e where e.digest = l.digest)
       union all
       select digest from blob b where unlinked_at is null
          and not exists (select from repository_blob l where l.blob_id = b.id)`,
    )
  }

  it('a link that one finds in use while the other removes the manifest that names it', async () => {
    const layer = await pushBlob(test.registry, REPOSITORY)
    await pushImage(test.registry, REPOSITORY, undefined, { layers: [layer] })
    await letTimePass(index.db)
    await whileOtherSweeps(async tx => {
      const links = await rows.lockExpiredLinks(tx, OPTIONS.batch)
      assert.equal(await rows.keepNamedLinks(tx, links), 2)
    })
    assert.deepEqual(await lost(), [])
  })

  it('a manifest that one finds in use while the other removes the index that names it', async () => {
    const image = await pushImage(test.registry, REPOSITORY, undefined)
    const parent = await pushIndex(test.registry, REPOSITORY, undefined, [image])
    await letTimePass(index.db)
    await whileOtherSweeps(async tx => {
      const found = await tx.query<{ id: number }>('select id from manifest where digest = $1 for update', [image])
      const ids = found.map(row => row.id)
      assert.deepEqual(await rows.findUnrooted(tx, ids), [])
      await rows.keepManifests(tx, ids)
    })
    assert.deepEqual(await lost(), [])
    const { digest } = await test.registry.statManifest(name, { digest: parent }, PUSHER)
    assert.equal(digest, parent, 'the index waits until nobody judges what it names')
  })

  it('a blob that one changes and rolls back while the other removes its last link: the walk over the index finds it', async () => {
    const layer = await pushBlob(test.registry, REPOSITORY)
    await letTimePass(index.db)
    const failure = new Error('rolled back')
    const changing = index.db.transaction(async tx => {
      // As a repair does: it marks the blob itself, so that who removes a link need not wait for it.
      await tx.query('update blob set unlinked_at = clock_timestamp() where digest = $1', [layer])
      await sweepLinks(other, OPTIONS)
      throw failure
    })
    await assert.rejects(changing, failure)
    assert.equal((await lost()).length, 1, 'nobody would look at it any more')
    const drift: [string, number][] = []
    const { signal } = new AbortController()
    const walk = {
      db: other,
      window: 100,
      windows: 100,
      leaseMs: 60_000,
      pause: () => Promise.resolve(),
      onDrift: (table: string, count: number) => void drift.push([table, count]),
    }
    await takeTurn<WalkCursor, WalkProgress>(other, { name: 'consistency', everyMs: 0, signal }, turn =>
      walkIndex(walk, turn),
    )
    assert.deepEqual(drift, [['blob', 1]])
    await sweepBlobs(other, OPTIONS)
    assert.deepEqual(await index.db.query('select from blob where digest = $1', [layer]), [])
  })

  it('a blob whose mark one takes away while the other removes its last link', async () => {
    const layer = await pushBlob(test.registry, REPOSITORY)
    await letTimePass(index.db)
    await index.db.transaction(tx => tx.query('update blob set unlinked_at = now() where digest = $1', [layer]))
    await index.db.transaction(async tx => {
      await rows.lockUnlinkedBlobs(tx, OPTIONS.batch)
      await sweepLinks(other, OPTIONS)
    })
    assert.deepEqual(await lost(), [])
    await sweepLinks(other, OPTIONS)
    await sweepBlobs(other, OPTIONS)
    assert.deepEqual(await index.db.query('select from blob where digest = $1', [layer]), [])
  })
})
