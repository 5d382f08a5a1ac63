import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, suite, test } from 'node:test'
import { type SweepResult, sweep, sweepLinks } from '../../src/gc/sweep.ts'
import type { Database } from '../../src/metadata/database.ts'
import { openPostgres } from '../../src/metadata/postgres.ts'
import * as rows from '../../src/metadata/sweep.ts'
import type { Digest } from '../../src/oci/digest.ts'
import { parseName } from '../../src/oci/name.ts'
import { until } from '../support/clients.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { PUSHER, type TestRegistry, pushBlob, pushImage, withRegistry } from '../support/registry.ts'

const LIVING = 190_000
const DEAD = 10_000
const PER_IMAGE = 100
const DEAD_MANIFESTS = 1_000
const OPTIONS = { batch: 200, leaseMs: 3_600_000, trashGraceMs: 3_600_000 }

async function nameOf(db: Database): Promise<string> {
  const [row] = await db.query<{ name: string }>('select current_database() as name')
  return row?.name ?? ''
}

function urlOf(database: string): string {
  const url = new URL(
    process.env['BERTH_TEST_POSTGRES'] ?? assert.fail('this needs Postgres: scripts/with-postgres.ts'),
  )
  url.pathname = `/${database}`
  return url.href
}

void suite('a registry of 200,000 blobs', () => {
  let index: TestDatabase
  let opened: TestRegistry
  before(async () => {
    index = await withDatabase()
    opened = await withRegistry(index.db)
    await index.db.transaction(tx =>
      tx.script(`
        set local statement_timeout = 0;
        set local session_replication_role = replica;
        insert into repository (name) values ('large/app');
        insert into blob (digest, size, store, storage_key)
          select 'sha256:' || md5(n::text) || md5('x' || n), 64, 'filesystem', md5('k' || n)
            from generate_series(1, ${LIVING + DEAD}) n;
        insert into repository_blob (repository_id, blob_id, digest, lease_until)
          select r.id, b.id, b.digest, case when b.id % 20 = 0 then 'epoch' else 'infinity' end::timestamptz
            from repository r, blob b;
        insert into manifest (repository_id, digest, media_type, size, payload, lease_until)
          select r.id, 'sha256:' || md5('m' || n) || md5('y' || n), 'm', 0, '', 'infinity'
            from repository r, generate_series(1, ${LIVING / PER_IMAGE}) n;
        insert into tag (repository_id, name, manifest_id) select repository_id, 't' || id, id from manifest;
        insert into manifest_blob (manifest_id, repository_id, digest, blob_id)
          select m.id, m.repository_id, l.digest, l.blob_id
            from (select *, row_number() over (order by blob_id) as place from repository_blob
                   where lease_until = 'infinity') l
            join (select *, row_number() over (order by id) as place from manifest) m
              on m.place = 1 + (l.place - 1) / ${PER_IMAGE};`),
    )
    await index.db.query('analyze')
  })
  after(async () => {
    await opened.close()
    await index.close()
  })

  /** How many rows of the tables that the sweep judges were read so far, by the server's own account. */
  async function reads(): Promise<number> {
    const [row] = await index.db.query<{ read: number }>(
      `select sum(seq_tup_read + idx_tup_fetch)::bigint as read from pg_stat_user_tables
        where relname in ('blob', 'repository_blob', 'manifest', 'manifest_blob')`,
    )
    assert.ok(row)
    return row.read
  }

  /** What `work` does and reads, on a connection that reports it when it is closed. */
  async function reading<T>(
    work: (db: Database) => Promise<T>,
  ): Promise<{ readonly outcome: T; readonly read: number }> {
    const start = await reads()
    const db = await openPostgres({ url: urlOf(await nameOf(index.db)), poolSize: 1 })
    const [backend] = await db.query<{ pid: number }>('select pg_backend_pid() as pid')
    const outcome = await work(db)
    await db.close()
    await until('the connection is gone', async () => {
      const rows = await index.db.query('select from pg_stat_activity where pid = $1', [backend?.pid])
      return rows.length === 0
    })
    return { outcome, read: (await reads()) - start }
  }

  const sweepAll = async (db: Database): Promise<SweepResult> => await sweep(db, OPTIONS, () => Promise.resolve())

  test('deleting an image looks at what it names, and not at every image of its repository', async t => {
    const [image] = await index.db.query<{ digest: Digest }>('select digest from manifest order by id limit 1')
    assert.ok(image)
    const { read } = await reading(async db => {
      const rules = await withRegistry(db, { store: opened.store })
      await rules.registry.deleteManifest(parseName('large/app'), { digest: image.digest }, PUSHER)
      await rules.close()
    })
    t.diagnostic(`${read} rows read for an image of ${PER_IMAGE} layers`)
    assert.ok(read < 15 * PER_IMAGE, `${read} rows were read`)
  })

  test('a collection looks at each dead blob, and at no living one', async t => {
    const { outcome, read } = await reading(sweepAll)
    const { looked, links, blobs } = outcome
    assert.deepEqual({ looked, links, blobs }, { looked: 2 * DEAD, links: DEAD, blobs: DEAD })
    t.diagnostic(`${read} rows read for ${DEAD} dead links and ${DEAD} dead blobs`)
    assert.ok(read < 15 * DEAD, `${read} rows were read`)
  })

  test('and from then on at nothing', async t => {
    const { outcome, read } = await reading(async db => {
      let looked = 0
      for (let round = 0; round < 20; round++) looked += (await sweepAll(db)).looked
      return looked
    })
    assert.equal(outcome, 0)
    t.diagnostic(`${read} rows read by 20 collections`)
    assert.ok(read < 1_000, `${read} rows were read`)
  })

  test('nor at the living manifests of a repository when some of it go', async t => {
    await index.db.transaction(tx =>
      tx.query(
        `insert into manifest (repository_id, digest, media_type, size, payload, lease_until)
         select id, 'sha256:' || md5('d' || n) || md5('d' || n), 'm', 0, '', 'epoch'
           from repository, generate_series(1, $1::int) n`,
        [DEAD_MANIFESTS],
      ),
    )
    const { outcome, read } = await reading(sweepAll)
    assert.equal(outcome.manifests, DEAD_MANIFESTS)
    t.diagnostic(`${read} rows read for ${DEAD_MANIFESTS} dead manifests`)
    assert.ok(read < 20 * DEAD_MANIFESTS, `${read} rows were read`)
  })

  test('living links whose promise has ended are judged once', async () => {
    await index.db.transaction(tx =>
      tx.query(`update repository_blob set lease_until = 'epoch' where blob_id % 20 = 1`),
    )
    assert.deepEqual(await sweepAll(index.db), { looked: LIVING / 19, manifests: 0, links: 0, blobs: 0, bytes: 0 })
    assert.equal((await sweepAll(index.db)).looked, 0)
  })

  test('a base layer that everybody uses is held against no HEAD, push or mount while it is judged', async () => {
    const { registry } = opened
    const bytes = randomBytes(64)
    const hot = await pushBlob(registry, 'hot/one', bytes)
    const name = parseName('hot/one')
    await pushImage(registry, 'hot/one', 'base', { layers: [hot] })
    const mount = { name: parseName('hot/two'), digest: hot, from: name, visible: [] }
    await registry.mountBlob(mount, PUSHER)
    await registry.deleteBlob(mount.name, hot, PUSHER)
    await sweepLinks(index.db, OPTIONS)
    const ids = await index.db.query<{ id: number }>('select id from blob where digest = $1', [hot])
    await index.db.transaction(async tx => {
      // The blob lost a link and is marked: the collector finds the other one and takes the mark away.
      await rows.lockUnlinkedBlobs(tx, OPTIONS.batch)
      await rows.markUnlinked(
        tx,
        ids.map(row => row.id),
      )
      const { size } = await registry.statBlob(name, hot, PUSHER)
      assert.equal(size, bytes.byteLength)
      assert.equal(await pushBlob(registry, 'hot/three', bytes), hot)
      assert.equal(await registry.mountBlob(mount, PUSHER), true)
      await pushImage(registry, 'hot/one', 'more', { layers: [hot] })
    })
    assert.equal((await registry.statBlob(name, hot, PUSHER)).size, bytes.byteLength)
  })
})
