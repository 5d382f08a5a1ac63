import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { pruneTagHistory } from '../../src/gc/prune-tag-history.ts'
import type { Digest } from '../../src/oci/digest.ts'
import { RegistryError } from '../../src/oci/errors.ts'
import { parseName, parseReference, parseTag } from '../../src/oci/name.ts'
import type { TagHistoryEntry } from '../../src/registry/tag-history.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { assertUsageIsTrue } from '../support/usage.ts'
import { ADMIN, type TestRegistry, pushImage, withRegistry } from '../support/registry.ts'

const REPOSITORY = 'history/app'
const name = parseName(REPOSITORY)

void suite('the history of a tag', () => {
  let database: TestDatabase
  let rules: TestRegistry
  before(async () => {
    database = await withDatabase()
    rules = await withRegistry(database.db)
  })
  after(async () => {
    await rules.close()
    await assertUsageIsTrue(database.db)
    await database.close()
  })

  const historyOf = async (tag: string): Promise<readonly TagHistoryEntry[]> =>
    (await rules.registry.listTagHistory({ name, tag: parseTag(tag) }, { last: undefined, limit: 100 })).items
  const digestOf = async (tag: string): Promise<Digest> =>
    (await rules.registry.statManifest(name, parseReference(tag), { mayPush: false })).digest
  /** Pushes a tag so many times; answers its digests, oldest first. */
  const pushTimes = async (tag: string, times: number): Promise<Digest[]> => {
    const digests: Digest[] = []
    for (let count = 0; count < times; count += 1) digests.push(await pushImage(rules.registry, REPOSITORY, tag))
    return digests
  }
  const rollBack = async (tag: string, target: { steps: number } | { to: Digest }) =>
    await rules.registry.rollBackTag({ name, tag: parseTag(tag), target }, ADMIN)
  const refused = async (work: Promise<unknown>): Promise<void> =>
    await assert.rejects(work, (error: unknown) => error instanceof RegistryError && error.code === 'NOT_FOUND')

  test('tells every change, newest first, with who made it; pushing the same again is none', async () => {
    const [first, second] = await pushTimes('told', 2)
    await rules.registry.deleteManifest(name, parseReference('told'), { mayPush: true, principal: 'carol' })
    assert.deepEqual(
      (await historyOf('told')).map(({ from, to, by, action }) => [from, to, by, action]),
      [
        [second, null, 'carol', 'delete'],
        [first, second, null, 'push'],
        [null, first, null, 'push'],
      ],
    )
  })

  test('is read in pages that follow each other without a gap', async () => {
    await pushTimes('paged', 5)
    const seen: number[] = []
    for (let last: number | undefined; ;) {
      const page = await rules.registry.listTagHistory({ name, tag: parseTag('paged') }, { last, limit: 2 })
      seen.push(...page.items.map(({ id }) => id))
      if (page.next === undefined) break
      last = Number(page.next)
    }
    assert.deepEqual(
      seen,
      (await historyOf('paged')).map(({ id }) => id),
    )
    assert.equal(seen.length, 5)
  })

  test('a tag is rolled back by steps and to a digest, and forward again', async () => {
    const [first, second, third] = await pushTimes('rolled', 3)
    assert.ok(first !== undefined && third !== undefined)
    assert.deepEqual(await rollBack('rolled', { steps: 1 }), { from: third, to: second })
    assert.equal(await digestOf('rolled'), second)
    assert.deepEqual(await rollBack('rolled', { to: first }), { from: second, to: first })
    assert.deepEqual(await rollBack('rolled', { to: third }), { from: first, to: third })
    assert.equal(await digestOf('rolled'), third)
    assert.equal((await historyOf('rolled'))[0]?.action, 'rollback')
  })

  test('a tag is rolled back to a manifest that was deleted, which comes back', async () => {
    const [first, second] = await pushTimes('hidden', 2)
    assert.ok(first !== undefined)
    await rules.registry.deleteManifest(name, parseReference(first), ADMIN)
    assert.deepEqual(await rollBack('hidden', { steps: 1 }), { from: second, to: first })
    assert.equal(await digestOf('hidden'), first)
  })

  test('a rollback beyond the history, to a digest that is not in it, or of no tag is refused', async () => {
    const [first] = await pushTimes('short', 1)
    const [elsewhere] = await pushTimes('elsewhere', 1)
    assert.ok(elsewhere !== undefined)
    await refused(rollBack('short', { steps: 1 }))
    await refused(rollBack('short', { to: elsewhere }))
    await refused(rollBack('nowhere', { steps: 1 }))
    assert.equal(await digestOf('short'), first)
  })

  test('what a rollback moved a tag off stays pullable by digest', async () => {
    const [, second] = await pushTimes('left', 2)
    await rollBack('left', { steps: 1 })
    assert.ok(second !== undefined)
    assert.equal(await digestOf(second), second)
  })

  test('is removed by age, and only what is older', async () => {
    await pushTimes('aged', 3)
    const [newest, , oldest] = await historyOf('aged')
    await database.db.transaction(tx =>
      tx.query(`update tag_history set changed_at = now() - interval '2 days' where id = $1`, [oldest?.id]),
    )
    assert.equal(await pruneTagHistory(database.db, 86_400_000), 1)
    const left = await historyOf('aged')
    assert.equal(left.length, 2)
    assert.equal(left[0]?.id, newest?.id)
  })
})
