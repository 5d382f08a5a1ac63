import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import type { Database } from '../../src/metadata/database.ts'
import { takeFree } from '../../src/metadata/quota-slots.ts'
import { deleteQuota, removeQuotaRests } from '../../src/metadata/quotas.ts'
import type { Digest } from '../../src/oci/digest.ts'
import { RegistryError } from '../../src/oci/errors.ts'
import { parseName } from '../../src/oci/name.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { Rival, openPatient } from '../support/lock-order.ts'
import { ADMIN, PUSHER, type TestRegistry, pushBlob, pushImage, withRegistry } from '../support/registry.ts'
import { ask, makePolicy, runOf, work } from '../support/retention.ts'
import { setQuota } from '../support/usage.ts'

const REPOSITORY = 'team/app'
const name = parseName(REPOSITORY)

// The order of locks: repository, tags (advisory), manifests by id, links and blobs by id, rows of tags, quotas. Each scene
// is another transaction that keeps to it, and that a use case must not be able to close a circle with.
void describe('locks are taken in one order, so that nothing depends on a retry (PostgreSQL, Deadlocks)', () => {
  let index: TestDatabase
  let patient: Database
  let rules: TestRegistry
  before(async () => {
    index = await withDatabase()
    patient = await openPatient(index.db)
    rules = await withRegistry(patient)
  })
  after(async () => {
    await rules.close()
    await patient.close()
    await index.close()
  })

  async function idOf(digest: Digest): Promise<number> {
    const [row] = await index.db.query<{ id: number }>('select id from manifest where digest = $1', [digest])
    assert.ok(row)
    return row.id
  }
  const remove = async (digest: Digest): Promise<void> => await rules.registry.deleteManifest(name, { digest }, PUSHER)
  const lockManifest = (mode: string): string => `select from manifest where id = $1 for ${mode}`

  for (const order of ['first', 'last'] as const) {
    it(`deleting a blob while the sweep removes deleted manifests that name it, the ${order} before the other`, async () => {
      const layer = await pushBlob(rules.registry, REPOSITORY)
      const images = [
        await pushImage(rules.registry, REPOSITORY, undefined, { layers: [layer] }),
        await pushImage(rules.registry, REPOSITORY, undefined, { layers: [layer] }),
      ]
      for (const image of images) await remove(image)
      const ids = await Promise.all(images.map(idOf))
      if (order === 'last') ids.reverse()
      const sweep = await Rival.begin(index.db)
      for (const id of ids.toSorted((a, b) => a - b)) await sweep.run(lockManifest('update'), id)
      await sweep.run('delete from manifest where id = $1', ids[0])
      const deletion = rules.registry.deleteBlob(name, layer, PUSHER)
      assert.equal(await sweep.meets(index.db, deletion), 'waits')
      assert.equal(await sweep.isDeadlock('delete from manifest where id = $1', ids[1]), false)
      await sweep.end()
      await deletion
    })
  }

  it('a run of retention that removes an untagged image, and a tag of an image that was pushed after it', async () => {
    const untagged = await pushImage(rules.registry, 'retained/app', undefined)
    const tagged = await pushImage(rules.registry, 'retained/app', 'v1')
    await index.db.transaction(tx =>
      tx.query(
        `update manifest set lease_until = now() + interval '40 hours', pushed_at = now() - interval '1 day'
          where digest = $1`,
        [untagged],
      ),
    )
    await makePolicy(patient, 'all', {
      rules: ['pushed within 1s of no-such-*', 'pushed within 1h of v9*'],
      untagged: true,
    })
    const run = await ask(patient, 'all')
    const other = await Rival.begin(index.db)
    await other.run(lockManifest('no key update'), await idOf(untagged))
    const removing = work(patient)
    assert.equal(await other.meets(index.db, removing), 'waits')
    assert.equal(await other.isDeadlock(lockManifest('no key update'), await idOf(tagged)), false)
    await other.end()
    await removing
    const { state, removed } = await runOf(patient, run)
    assert.deepEqual({ state, removed }, { state: 'done', removed: 2 })
  })

  it('deleting an image whose tag and layer another one, that is undeleted, had before', async () => {
    const layer = await pushBlob(rules.registry, REPOSITORY)
    const old = await pushImage(rules.registry, REPOSITORY, 'again', { layers: [layer] })
    await remove(old)
    const young = await pushImage(rules.registry, REPOSITORY, 'again', { layers: [layer] })
    const undelete = await Rival.begin(index.db)
    await undelete.run(lockManifest('no key update'), await idOf(old))
    await undelete.run('select from repository_blob where digest = $1 for key share', layer)
    const deletion = remove(young)
    assert.equal(await undelete.meets(index.db, deletion), 'waits')
    const insert = `insert into tag (repository_id, name, manifest_id)
      select repository_id, 'again', id from manifest where id = $1 on conflict do nothing`
    assert.equal(await undelete.isDeadlock(insert, await idOf(old)), false)
    await undelete.end()
    await deletion
  })

  it('undeleting an image waits for who is writing one of its tags, before it holds anything', async () => {
    const image = await pushImage(rules.registry, REPOSITORY, 'busy')
    await remove(image)
    const push = await Rival.begin(index.db)
    await push.run(
      `select pg_advisory_xact_lock_shared(hashtextextended('tags ' || id, 0)),
              pg_advisory_xact_lock(hashtextextended('tag ' || id || ' busy', 0)) from repository where name = $1`,
      REPOSITORY,
    )
    const undeletion = rules.registry.undeleteManifest(name, image, ADMIN)
    assert.equal(await push.meets(index.db, undeletion), 'waits')
    assert.equal(await push.isDeadlock(lockManifest('no key update'), await idOf(image)), false)
    await push.end()
    assert.deepEqual((await undeletion).tags, ['busy'])
  })

  it('of many that take the last of a quota at once', async () => {
    await setQuota(index.db, 'last/**', 160)
    const [quota] = await index.db.query<{ id: number }>(`select id from quota where pattern = 'last/**'`)
    const id = quota?.id ?? 0
    const holder = await Rival.begin(index.db)
    await holder.run('update quota_slot set free = 1 where quota_id = $1', id)
    let attempts = 0
    const takers = Array.from({ length: 8 }, () =>
      index.db.transaction(async tx => {
        attempts += 1
        return await takeFree(tx, id, 2)
      }),
    )
    for (;;) {
      const [row] = await index.db.query<{ waiting: number }>(
        `select count(*)::int as waiting from pg_stat_activity
          where wait_event_type = 'Lock' and datname = current_database()`,
      )
      if (row?.waiting === takers.length) break
    }
    await holder.run('commit')
    const taken = (await Promise.all(takers)).map(state => state?.taken)
    await holder.end()
    assert.deepEqual(taken, Array(8).fill(true))
    assert.equal(attempts, takers.length, 'no attempt was lost to a deadlock')
  })

  it('deleting a quota while a push takes from it', async () => {
    await setQuota(index.db, 'gone/**', 10_000, 'physical')
    const layer = await pushBlob(rules.registry, 'gone/app')
    const [quota] = await index.db.query<{ id: number }>(`select id from quota where pattern = 'gone/**'`)
    const push = await Rival.begin(index.db)
    await push.run('update quota_blob set links = links + 1 where quota_id = $1', quota?.id)
    const deletion = patient.transaction(tx => deleteQuota(tx, 'gone/**', 'physical'))
    await push.meets(index.db, deletion)
    const claim = 'insert into quota_blob (quota_id, blob_id, size, links) values ($1, 0, 1, 1)'
    assert.equal(await push.isDeadlock(claim, quota?.id), false)
    await push.end()
    assert.equal(await deletion, true)
    await rules.registry.deleteBlob(parseName('gone/app'), layer, PUSHER)
    await assert.rejects(rules.registry.statBlob(parseName('gone/app'), layer, PUSHER), RegistryError)
    while ((await index.db.transaction(tx => removeQuotaRests(tx, 5))) > 0);
    for (const table of ['quota_blob', 'quota_slot']) {
      assert.deepEqual(await index.db.query(`select from ${table} where quota_id = $1`, [quota?.id]), [])
    }
    const others = await index.db.query('select from quota_slot')
    assert.equal(others.length, 16, 'what other quotas count stays')
  })
})
