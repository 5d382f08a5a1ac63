import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { expireUploads } from '../../src/gc/expire-uploads.ts'
import { pruneEvents } from '../../src/gc/prune-events.ts'
import { purgeTrash } from '../../src/gc/purge.ts'
import { reconcile } from '../../src/gc/reconcile.ts'
import type { Database } from '../../src/metadata/database.ts'
import type { BlobStore } from '../../src/storage/blob-store.ts'
import { newKey } from '../../src/storage/keys.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { type TestRegistry, withRegistry } from '../support/registry.ts'

void suite('a process that stops does not wait for all of its background work (POSIX.1, SIGTERM)', () => {
  let index: TestDatabase
  let opened: TestRegistry

  before(async () => {
    index = await withDatabase()
    opened = await withRegistry(index.db)
  })
  after(async () => {
    await opened.close()
    await index.close()
  })

  /** The index, and a signal that fires once its first transaction is over. */
  function stoppingAfterFirst(): { readonly db: Database; readonly signal: AbortSignal } {
    const stop = new AbortController()
    const transaction: Database['transaction'] = async work => {
      const outcome = await index.db.transaction(work)
      stop.abort()
      return outcome
    }
    return { db: { ...index.db, driver: index.db.driver, transaction }, signal: stop.signal }
  }

  async function count(table: string): Promise<number> {
    const [row] = await index.db.query<{ count: number }>(`select count(*)::int as count from ${table}`)
    return row?.count ?? 0
  }

  const fill = (statement: string): Promise<void> => index.db.transaction(tx => tx.script(statement))

  const isAbort = { name: 'AbortError' }

  test('uploads that expired', async () => {
    await fill(`insert into repository (name) values ('a');
      insert into upload (id, repository_id, expires_at, store, store_state, prefix_digest)
      select gen_random_uuid(), r.id, now() - interval '1 hour', 's', jsonb_build_object('key', n), '{}'
        from repository r, generate_series(1, 150) n`)
    const { db, signal } = stoppingAfterFirst()
    await assert.rejects(expireUploads(db, signal), isAbort)
    assert.equal(await count('upload'), 50)
    assert.equal(await expireUploads(index.db), 50)
  })

  test('bytes to purge: the batch that began is ended', async () => {
    await fill(`delete from trash;
      insert into trash (store, storage_key, purge_after)
      select 'filesystem', md5(n::text), now() - interval '1 hour' from generate_series(1, 150) n`)
    const { db, signal } = stoppingAfterFirst()
    await assert.rejects(purgeTrash(db, opened.store, { signal }), isAbort)
    assert.equal(await count('trash'), 50)
    assert.equal((await purgeTrash(index.db, opened.store)).purged, 50)
  })

  test('old events', async () => {
    await fill(`insert into event (at, kind, repository, detail)
      select now() - interval '1 hour', 'k', 'a', '{}' from generate_series(1, 1500)`)
    const { db, signal } = stoppingAfterFirst()
    await assert.rejects(pruneEvents(db, 1, signal), isAbort)
    assert.equal(await count('event'), 500)
  })

  test('a store that is listed', async () => {
    const stop = new AbortController()
    let listed = 0
    const store: BlobStore = {
      ...opened.store,
      async *list() {
        for (;;) {
          listed += 1
          if (listed === 10) stop.abort()
          yield { key: newKey(), modified: new Date() }
        }
      },
    }
    await assert.rejects(reconcile(index.db, store, 1, stop.signal), isAbort)
    assert.equal(listed, 10)
  })
})
