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
