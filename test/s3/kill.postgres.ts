import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import type { Ledger } from '../crash/model.ts'
import { KILLS, killAgainAndAgain } from '../crash/kills.ts'
import { expireUploads } from '../../src/gc/expire-uploads.ts'
import { purgeTrash } from '../../src/gc/purge.ts'
import { reconcile } from '../../src/gc/reconcile.ts'
import { openPostgres } from '../../src/metadata/postgres.ts'
import type { StorageKey } from '../../src/storage/blob-store.ts'
import { letTimePass } from '../support/registry.ts'
import { createDatabase, startServer } from '../support/server.ts'
import { type TestBucket, createBucket, testServers } from './support.ts'

/** Everything is older than an hour from now. */
const ANY_AGE = -3_600_000
/** A death costs who goes on the rest of the dead one's lease, 12 s: fewer of them than with one process. */
const DEATHS = Math.ceil(KILLS / 2)

for (const s3 of testServers()) {
  void test(`${DEATHS} times SIGKILL of one of two processes on Postgres and ${s3.name} loses nothing, shows nothing half, and leaves nothing after the reconcile`, async t => {
    const database = await createDatabase()
    assert.ok(database !== undefined, 'BERTH_TEST_POSTGRES names no server: run npm run test:s3')
    const bucket = await createBucket(s3)
    const place = {
      processes: 2,
      start: () => startServer({ databaseUrl: database.url, env: bucket.settings() }),
      verifyStored: (ledger: Ledger) => verifyObjects(bucket, database.url, ledger),
    }
    try {
      await killAgainAndAgain(t, place, DEATHS)
    } finally {
      await bucket.remove()
      await database.drop()
    }
  })
}

/** Asserts that after purge and reconcile the objects are those that blobs name, each with its own content. */
async function verifyObjects(bucket: TestBucket, databaseUrl: string, ledger: Ledger): Promise<number> {
  const store = bucket.open()
  const db = await openPostgres({ url: databaseUrl })
  try {
    const { signal } = new AbortController()
    const blobs = await db.query<{ digest: string; storage_key: StorageKey }>('select digest, storage_key from blob')
    for (const { digest, storage_key: key } of blobs) {
      const hash = createHash('sha256')
      for await (const bytes of store.read(key, signal)) hash.update(bytes)
      assert.equal(`sha256:${hash.digest('hex')}`, digest)
      assert.ok(ledger.sent.has(digest))
    }
    // Sessions that are over, and those whose client never learned that they were begun.
    await db.transaction(tx => tx.query(`update upload set expires_at = clock_timestamp() - interval '1 second'`))
    await expireUploads(db)
    await letTimePass(db)
    await purgeTrash(db, store)
    await reconcile(db, store, ANY_AGE)
    const objects = (await bucket.contents()).filter(object => !object.endsWith('/marker'))
    assert.deepEqual(
      objects.map(object => object.slice(-32)).toSorted(),
      blobs.map(blob => String(blob.storage_key)).toSorted(),
    )
    return blobs.length
  } finally {
    await db.close()
    await store.close()
  }
}
