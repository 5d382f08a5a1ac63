import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import type { Database } from '../../src/metadata/database.ts'
import { addPulls } from '../../src/metadata/pulls.ts'
import { claimRun, confirmRun } from '../../src/metadata/retention-runs.ts'
import { parseName, parseReference } from '../../src/oci/name.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { PUSHER, type TestRegistry, pushImage, pushIndex, withRegistry } from '../support/registry.ts'
import { LIFETIMES, age, ask, itemsOf, makePolicy, run, runOf, tagsOf, work } from '../support/retention.ts'

void suite('retention', () => {
  let database: TestDatabase
  let db: Database
  let opened: TestRegistry

  before(async () => {
    database = await withDatabase()
    ;({ db } = database)
    opened = await withRegistry(db, { lifetimes: LIFETIMES })
  })
  after(async () => {
    await opened.close()
    await database.close()
  })

  const push = async (repository: string, tag: string | undefined) => await pushImage(opened.registry, repository, tag)
  const isThere = async (repository: string, reference: string): Promise<boolean> =>
    await opened.registry.statManifest(parseName(repository), parseReference(reference), { mayPush: false }).then(
      () => true,
      () => false,
    )

  /** Tags `old-1` to `old-N`, pushed 20 days ago, and `new`. */
  async function pushOldAndNew(repository: string, old: number): Promise<void> {
    for (let count = 1; count <= old; count++) await push(repository, `old-${count}`)
    await age(db, repository, 20)
    await push(repository, 'new')
  }

  async function pull(repository: string, tag: string): Promise<void> {
    const manifest = await opened.registry.statManifest(parseName(repository), parseReference(tag), PUSHER)
    const { repositoryId, id: manifestId } = manifest
    await db.transaction(tx => addPulls(tx, [{ repositoryId, manifestId, tag, pulls: 1, agoMs: 0 }]))
  }

  test('a run removes what no rule keeps, says why, and leaves a history that names the policy', async () => {
    await pushOldAndNew('run/plain', 3)
    await makePolicy(db, 'plain', { pattern: 'run/plain', rules: ['pushed within 14d'] })
    const { id, state, tags, going, removed, spared } = await run(db, 'plain')
    assert.deepEqual(
      { state, tags, going, removed, spared },
      { state: 'done', tags: 4, going: 3, removed: 3, spared: 0 },
    )
    assert.deepEqual(await tagsOf(db, 'run/plain'), ['new'])
    const items = await itemsOf(db, id)
    assert.deepEqual(Object.keys(items), ['old-1', 'old-2', 'old-3'])
    assert.match(items['old-1']?.reason ?? '', /^no rule keeps it: pushed 20 days ago/)
    assert.equal(items['old-1']?.outcome, 'removed')
    const history = await db.query<{ changed_by: string }>(
      `select changed_by from tag_history where name = 'old-1' and new_digest is null`,
    )
    assert.deepEqual(history, [{ changed_by: 'retention policy plain' }])
  })

  test('what a run removed stays pullable by digest, and pointing the tag at it again brings it back', async () => {
    const digest = await push('run/undo', 'v1')
    await age(db, 'run/undo', 20)
    await makePolicy(db, 'undo', { pattern: 'run/undo', rules: ['pushed within 14d'] })
    await run(db, 'undo')
    assert.deepEqual([await isThere('run/undo', 'v1'), await isThere('run/undo', digest)], [false, true])
    const [row] = await db.query<{ stays: boolean }>(
      `select lease_until between clock_timestamp() + interval '47 hours' and clock_timestamp() + interval '49 hours'
              as stays from manifest where digest = $1`,
      [digest],
    )
    assert.equal(row?.stays, true)
  })

  test('more tags than one transaction takes are removed batch by batch, and all that stay do', async () => {
    await push('run/many', 'seed')
    await db.transaction(
      async tx =>
        void (await tx.query(
          `insert into tag (repository_id, name, manifest_id)
           select t.repository_id, 'many-' || n, t.manifest_id from generate_series(1, 250) n,
                  tag t join repository r on r.id = t.repository_id where r.name = 'run/many'`,
        )),
    )
    await age(db, 'run/many', 20)
    await makePolicy(db, 'many', { pattern: 'run/many', rules: ['all of /many-.*7/', 'all of seed'] })
    const { state, removed } = await run(db, 'many')
    assert.deepEqual([state, removed], ['done', 225])
    assert.equal((await tagsOf(db, 'run/many')).length, 26)
  })

  test('only repositories of the pattern are looked at', async () => {
    await pushOldAndNew('run/in', 1)
    await pushOldAndNew('run/in/deep', 1)
    await pushOldAndNew('out/of', 1)
    await makePolicy(db, 'pattern', { pattern: 'run/in', rules: ['pushed within 14d'] })
    assert.equal((await run(db, 'pattern')).repositories, 1)
    assert.deepEqual(await Promise.all(['run/in', 'run/in/deep', 'out/of'].map(name => tagsOf(db, name))), [
      ['new'],
      ['new', 'old-1'],
      ['new', 'old-1'],
    ])
  })

  test('a plan removes nothing, names every tag with its rule, and goes on when it is confirmed', async () => {
    await pushOldAndNew('run/plan', 2)
    await makePolicy(db, 'plan', { pattern: 'run/plan', rules: ['all of old-1', 'pushed within 14d'] })
    const { id, state, held } = await run(db, 'plan', 'plan')
    assert.deepEqual([state, held], ['asks', 1])
    const items = await itemsOf(db, id)
    assert.deepEqual(
      Object.values(items).map(({ name, goes, rule, outcome }) => [name, goes, rule, outcome]),
      [
        ['new', false, 2, null],
        ['old-1', false, 1, null],
        ['old-2', true, null, null],
      ],
    )
    assert.equal((await tagsOf(db, 'run/plan')).length, 3)
    assert.equal(await db.transaction(tx => confirmRun(tx, id)), true)
    await work(db)
    assert.deepEqual(await tagsOf(db, 'run/plan'), ['new', 'old-1'])
    assert.equal((await runOf(db, id)).state, 'done')
    assert.equal(await db.transaction(tx => confirmRun(tx, id)), false)
  })

  test('a run holds a repository that would lose more than the share, does the others, and asks', async () => {
    await pushOldAndNew('run/share/much', 3)
    await push('run/share/little', 'a')
    await age(db, 'run/share/little', 20)
    for (const tag of ['b', 'c', 'd']) await push('run/share/little', tag)
    await makePolicy(db, 'share', { pattern: 'run/share/*', rules: ['pushed within 14d'], max_share: 30 })
    const { id, state, held, removed } = await run(db, 'share')
    assert.deepEqual({ state, held, removed }, { state: 'asks', held: 1, removed: 1 })
    assert.deepEqual(await tagsOf(db, 'run/share/little'), ['b', 'c', 'd'])
    assert.equal((await tagsOf(db, 'run/share/much')).length, 4)
    await db.transaction(tx => confirmRun(tx, id))
    await work(db)
    assert.deepEqual(await tagsOf(db, 'run/share/much'), ['new'])
    assert.deepEqual(await runOf(db, id).then(({ state: ended, held: still }) => [ended, still]), ['done', 0])
  })

  test('what was pushed, pulled, deleted or became kept after the plan is not taken, and the run says why', async () => {
    for (const tag of ['moved', 'again', 'pulled', 'gone', 'newest', 'still']) await push('run/since', tag)
    const same = await push('run/since', 'other')
    for (const [index, tag] of ['still', 'gone', 'pulled', 'again', 'moved', 'newest', 'other'].entries()) {
      await age(db, 'run/since', 40 - index, tag)
    }
    await makePolicy(db, 'since', { pattern: 'run/since', rules: ['newest 1'] })
    const { id } = await run(db, 'since', 'plan')
    await push('run/since', 'moved')
    await age(db, 'run/since', 39, 'moved')
    await pull('run/since', 'pulled')
    await opened.registry.deleteManifest(parseName('run/since'), parseReference('gone'), PUSHER)
    await opened.registry.deleteManifest(parseName('run/since'), parseReference(same), PUSHER)
    await db.transaction(tx => confirmRun(tx, id))
    await work(db)
    const items = await itemsOf(db, id)
    assert.deepEqual(await tagsOf(db, 'run/since'), ['moved', 'newest', 'pulled'])
    assert.deepEqual(
      ['moved', 'pulled', 'gone', 'still', 'again'].map(name => items[name]?.outcome),
      ['spared', 'spared', 'spared', 'removed', 'removed'],
    )
    assert.match(items['moved']?.reason ?? '', /pushed after the plan/)
    assert.match(items['pulled']?.reason ?? '', /pulled after the plan/)
    assert.match(items['gone']?.reason ?? '', /deleted already/)
    assert.match(items['newest']?.reason ?? '', /^newest 1: /)
  })

  test('a pull of a part of an index by its digest keeps the tag of the index (Kubernetes pins digests)', async () => {
    const child = await push('run/parts', undefined)
    await pushIndex(opened.registry, 'run/parts', 'multi', [child])
    await push('run/parts', 'unused')
    await age(db, 'run/parts', 20)
    await db.transaction(
      async tx => void (await tx.query(`update pull_counting set since = now() - interval '90 days'`)),
    )
    const { id: manifestId, repositoryId } = await opened.registry.statManifest(
      parseName('run/parts'),
      parseReference(child),
      PUSHER,
    )
    await db.transaction(tx => addPulls(tx, [{ repositoryId, manifestId, tag: undefined, pulls: 1, agoMs: 0 }]))
    await makePolicy(db, 'parts', { pattern: 'run/parts', rules: ['pulled within 7d'] })
    await run(db, 'parts')
    assert.deepEqual(await tagsOf(db, 'run/parts'), ['multi'])
    await db.transaction(async tx => void (await tx.query('update pull_counting set since = now()')))
  })

  test('untagged manifests are left to the collector sooner, but not before the lease that pushers were promised', async () => {
    const old = await push('run/untagged', undefined)
    const fresh = await push('run/untagged', undefined)
    const child = await push('run/untagged', undefined)
    await pushIndex(opened.registry, 'run/untagged', 'v1', [child])
    await db.transaction(async tx => {
      await tx.query(
        `update manifest set lease_until = clock_timestamp() + interval '40 hours', pushed_at = pushed_at - interval '9 days'
          where digest = any($1::text[])`,
        [[old, child]],
      )
      await tx.query(`update manifest set lease_until = clock_timestamp() + interval '40 hours' where digest = $1`, [
        fresh,
      ])
    })
    await makePolicy(db, 'untagged', {
      pattern: 'run/untagged',
      rules: ['all of v*', 'pushed within 7d'],
      untagged: true,
    })
    const { id, removed } = await run(db, 'untagged')
    assert.equal(removed, 1)
    assert.equal((await itemsOf(db, id))[old]?.outcome, 'removed')
    const rows = await db.query<{ digest: string; hours: number }>(
      `select digest, round(extract(epoch from lease_until - clock_timestamp()) / 3600)::int as hours from manifest
        where digest = any($1::text[])`,
      [[old, fresh, child]],
    )
    const hours = new Map(rows.map(row => [row.digest, row.hours]))
    assert.deepEqual([hours.get(old), hours.get(fresh), hours.get(child)], [1, 40, 40])
  })

  test('a run whose policy was changed after it was asked for removes nothing', async () => {
    await pushOldAndNew('run/changed', 1)
    await makePolicy(db, 'changed', { pattern: 'run/changed', rules: ['pushed within 14d'] })
    const id = await ask(db, 'changed')
    await makePolicy(db, 'changed', { pattern: 'run/changed', rules: ['pushed within 90d'] })
    await work(db)
    const { state, error } = await runOf(db, id)
    assert.equal(state, 'failed')
    assert.match(error ?? '', /policy was changed/)
    assert.equal((await tagsOf(db, 'run/changed')).length, 2)
  })

  test('a rule that cannot be applied fails the run with its reason, and removes nothing', async () => {
    await pushOldAndNew('run/broken', 1)
    await makePolicy(db, 'broken', { pattern: 'run/broken', tags: ['/(/'], rules: ['newest 1'] })
    const id = await ask(db, 'broken')
    await assert.rejects(work(db))
    assert.equal((await runOf(db, id)).state, 'failed')
    assert.equal((await tagsOf(db, 'run/broken')).length, 2)
  })

  test('a process that dies is followed by another, which goes on where it was; a live one is not disturbed', async () => {
    await pushOldAndNew('run/dies', 2)
    await makePolicy(db, 'dies', { pattern: 'run/dies', rules: ['pushed within 14d'] })
    const id = await ask(db, 'dies')
    const claimed = await db.transaction(tx => claimRun(tx, 600_000))
    assert.equal(claimed?.id, id)
    await work(db)
    assert.equal((await runOf(db, id)).state, 'waiting')
    await db.transaction(
      async tx => void (await tx.query(`update retention_run set lease_until = now() where id = $1`, [id])),
    )
    await work(db)
    assert.equal((await runOf(db, id)).state, 'done')
    assert.deepEqual(await tagsOf(db, 'run/dies'), ['new'])
  })

  test('a process that is told to end stops between batches, and the rest is gone on with', async () => {
    await pushOldAndNew('run/ends', 2)
    await makePolicy(db, 'ends', { pattern: 'run/ends', rules: ['pushed within 14d'] })
    const id = await ask(db, 'ends')
    await assert.rejects(work(db, AbortSignal.abort()))
    assert.equal((await tagsOf(db, 'run/ends')).length, 3)
    await work(db)
    assert.equal((await runOf(db, id)).state, 'done')
    assert.deepEqual(await tagsOf(db, 'run/ends'), ['new'])
  })
})
