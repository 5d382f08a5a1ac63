import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import type { Database } from '../../src/metadata/database.ts'
import { insertTagRule } from '../../src/metadata/tag-rules.ts'
import { parseName, parseReference, parseTag } from '../../src/oci/name.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { assertUsageIsTrue } from '../support/usage.ts'
import { ADMIN, type TestRegistry, pushImage, withRegistry } from '../support/registry.ts'
import { LIFETIMES, age, itemsOf, makePolicy, run, tagsOf } from '../support/retention.ts'

void suite('retention, tag rules and undeleting', () => {
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
    await assertUsageIsTrue(database.db)
    await database.close()
  })

  test('what a policy removed is undeleted with its referrers, as what a client deleted is', async () => {
    const name = parseName('undo/app')
    const digest = await pushImage(opened.registry, name, 'v1')
    const signature = await pushImage(opened.registry, name, undefined, { subject: digest })
    await age(db, name, 20)
    await makePolicy(db, 'undone', { pattern: name, rules: ['pushed within 14d'] })
    assert.equal((await run(db, 'undone')).removed, 1)
    assert.deepEqual(await tagsOf(db, name), [])
    await opened.registry.undeleteTag({ name, tag: parseTag('v1'), force: false }, ADMIN)
    assert.deepEqual(await tagsOf(db, name), ['v1'])
    for (const reference of ['v1', digest, signature]) {
      await opened.registry.statManifest(name, parseReference(reference), { mayPush: false })
    }
    // It was just pointed there: that counts as a push.
    assert.equal((await run(db, 'undone')).going, 0)
  })

  test('what was deleted keeps its grace, and what was deleted with it, also where a policy takes untagged content', async () => {
    const name = parseName('undo/grace')
    const removed = await pushImage(opened.registry, name, 'v1')
    const deleted = await pushImage(opened.registry, name, 'v2')
    const signature = await pushImage(opened.registry, name, undefined, { subject: deleted })
    const loose = await pushImage(opened.registry, name, undefined)
    await age(db, name, 20)
    await makePolicy(db, 'first', { pattern: name, tags: ['v1'], rules: ['pushed within 14d'] })
    assert.equal((await run(db, 'first')).removed, 1)
    await opened.registry.deleteManifest(name, parseReference(deleted), ADMIN)
    await db.query(`update manifest set pushed_at = now() - interval '20 days'`)
    // As after a tag has moved on: nothing was deleted.
    await db.query(`update manifest set lease_until = now() + interval '40 hours' where digest = $1`, [loose])
    await makePolicy(db, 'second', { pattern: name, rules: ['pushed within 14d'], untagged: true })
    const { id } = await run(db, 'second')
    assert.deepEqual(Object.keys(await itemsOf(db, id)), [loose])
    const leases = await db.query<{ digest: string; hours: number }>(
      `select digest, round(extract(epoch from lease_until - now()) / 3600)::int as hours from manifest
        where digest = any($1)`,
      [[removed, signature]],
    )
    assert.deepEqual(
      leases.map(({ hours }) => hours),
      [48, 48],
    )
  })

  test('a tag that a rule keeps is spared with the reason, beside others that go; one that may expire goes', async () => {
    const name = parseName('undo/kept')
    for (const tag of ['a', 'may-1', 'stable-1', 'z']) await pushImage(opened.registry, name, tag)
    await age(db, name, 20)
    for (const [tags, mayExpire] of [
      ['stable-*', false],
      ['may-*', true],
    ] as const) {
      await db.transaction(tx =>
        insertTagRule(tx, {
          name: mayExpire ? 'expiring' : 'stable',
          pattern: name,
          tags,
          immutable: true,
          protected: true,
          mayExpire,
          principalIds: [],
          groupIds: [],
          createdBy: 'test',
        }),
      )
    }
    await makePolicy(db, 'kept', { pattern: name, rules: ['pushed within 14d'] })
    const { id, state, removed, spared } = await run(db, 'kept')
    assert.deepEqual([state, removed, spared], ['done', 3, 1])
    assert.deepEqual(await tagsOf(db, name), ['stable-1'])
    assert.match((await itemsOf(db, id))['stable-1']?.reason ?? '', /immutable: tag rule stable/)
  })
})
