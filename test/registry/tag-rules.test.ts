import assert from 'node:assert/strict'
import { after, afterEach, before, suite, test } from 'node:test'
import { RegistryError } from '../../src/oci/errors.ts'
import { OCI_INDEX } from '../../src/oci/media-types.ts'
import { parseName, parseReference, parseTag } from '../../src/oci/name.ts'
import type { AdminCaller } from '../../src/registry/context.ts'
import { MirroredTags } from '../../src/registry/mirrored-tags.ts'
import { openTagGuard, tagRefusal } from '../../src/registry/tag-guard.ts'
import { Stores } from '../../src/storage/stores.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { ADMIN, PUSHER, type TestRegistry, pushImage, sha256, withRegistry } from '../support/registry.ts'
import { addPrincipal, addTagRule, clearTagRules } from '../support/tag-rules.ts'

const REPOSITORY = 'team/app'
const name = parseName(REPOSITORY)

let database: TestDatabase
let rules: TestRegistry
before(async () => {
  database = await withDatabase()
  rules = await withRegistry(database.db)
})
after(async () => {
  await rules.close()
  await database.close()
})
afterEach(() => clearTagRules(database.db))

/** Asserts a refusal by the tag rule of that name: distribution-spec, "Error Codes", DENIED. */
async function refused(work: Promise<unknown>, rule: string): Promise<void> {
  await assert.rejects(work, (error: unknown) => {
    assert.ok(error instanceof RegistryError, String(error))
    assert.deepEqual([error.code, error.status], ['DENIED', 403])
    assert.match(error.message, new RegExp(`tag rule ${rule} `))
    return true
  })
}
const remove = async (reference: string): Promise<void> =>
  await rules.registry.deleteManifest(name, parseReference(reference), PUSHER)
const digestOf = async (tag: string): Promise<string> =>
  (await rules.registry.statManifest(name, parseReference(tag), PUSHER)).digest
/** Pushes an empty index of `text` under its digest with tags beside it (`?tag=`), or under a tag. */
const pushText = async (text: string, reference: string | undefined, tags: readonly string[] = []): Promise<string> => {
  const body = { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [], annotations: { text } }
  const bytes = Buffer.from(JSON.stringify(body))
  const digest = sha256(bytes)
  const push = {
    name,
    reference: parseReference(reference ?? digest),
    tags: tags.map(parseTag),
    contentType: OCI_INDEX,
    bytes,
  }
  await rules.registry.pushManifest(push, PUSHER)
  return digest
}

void suite('an immutable tag', () => {
  test('is made once; the same digest again is success, another is refused, by tag and by digest with ?tag=', async () => {
    const rule = await addTagRule(database.db, { pattern: 'team/**', tags: 'v*', immutable: true })
    const first = await pushText('first', 'v1')
    await pushText('first', 'v1')
    await pushText('first', undefined, ['v1'])
    await refused(pushText('second', 'v1'), rule)
    await refused(pushText('second', undefined, ['other', 'v1']), rule)
    assert.equal(await digestOf('v1'), first)
    await assert.rejects(digestOf('other'))
    await assert.rejects(digestOf(sha256('second')))
  })

  test('is not deleted, neither alone, nor with its manifest, nor with its repository', async () => {
    const image = await pushImage(rules.registry, REPOSITORY, 'stays')
    const rule = await addTagRule(database.db, { tags: 'stays', immutable: true })
    await refused(remove('stays'), rule)
    await refused(remove(image), rule)
    await refused(
      rules.registry.deleteManifestByAdmin({ name, reference: parseReference(image), force: true }, ADMIN),
      rule,
    )
    await refused(rules.registry.deleteRepository(name, ADMIN), rule)
    assert.equal(await digestOf('stays'), image)
  })

  test('is neither rolled back nor moved by an undelete with force', async () => {
    const former = await pushImage(rules.registry, REPOSITORY, 'rolled')
    await remove('rolled')
    const present = await pushImage(rules.registry, REPOSITORY, 'rolled')
    const rule = await addTagRule(database.db, { tags: 'rolled', immutable: true })
    const tag = parseTag('rolled')
    await refused(rules.registry.rollBackTag({ name, tag, target: { steps: 1 } }, ADMIN), rule)
    await refused(rules.registry.undeleteTag({ name, tag, force: true }, ADMIN), rule)
    assert.notEqual(former, present)
    assert.equal(await digestOf('rolled'), present)
  })

  test('concerns the tags and repositories of its rule and no others', async () => {
    await addTagRule(database.db, { pattern: 'team/*', tags: '/v\\d+/', immutable: true })
    for (const [repository, tag] of [
      ['team/app', 'v1x'],
      ['team/app', 'latest'],
      ['team/app/sub', 'v1'],
      ['other', 'v1'],
    ] as const) {
      await pushImage(rules.registry, repository, tag)
      await pushImage(rules.registry, repository, tag)
    }
  })

  test('a push of several tags of which one is refused changes none of them, and leaves no history', async () => {
    await pushText('one', undefined, ['a1', 'z1'])
    const rule = await addTagRule(database.db, { tags: 'z*', immutable: true })
    await refused(pushText('two', undefined, ['a1', 'z1']), rule)
    assert.equal(await digestOf('a1'), await digestOf('z1'))
    const { items } = await rules.registry.listTagHistory({ name, tag: parseTag('a1') }, { last: undefined, limit: 10 })
    assert.equal(items.length, 1)
  })
})

void suite('a protected tag', () => {
  test('is created, moved and deleted by its writers only; pushing what it points to changes nothing and is success', async () => {
    const writer = { mayPush: true, principal: 'release', principalId: await addPrincipal(database.db, 'release') }
    const stranger = { mayPush: true, principal: 'stranger', principalId: await addPrincipal(database.db, 'stranger') }
    const rule = await addTagRule(database.db, { tags: 'prod', protected: true, principalIds: [writer.principalId] })
    const bytes = (text: string): Buffer =>
      Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [], annotations: { text } }))
    const push = async (text: string, caller: typeof writer): Promise<unknown> =>
      await rules.registry.pushManifest(
        { name, reference: parseReference('prod'), tags: [], contentType: OCI_INDEX, bytes: bytes(text) },
        caller,
      )
    await refused(push('one', stranger), rule)
    await push('one', writer)
    await push('one', stranger)
    await refused(push('two', stranger), rule)
    await refused(rules.registry.deleteManifest(name, parseReference('prod'), stranger), rule)
    await push('two', writer)
    const admin = (caller: typeof writer): AdminCaller => ({ ...ADMIN, ...caller })
    const rollback = { name, tag: parseTag('prod'), target: { steps: 1 } }
    await refused(rules.registry.rollBackTag(rollback, admin(stranger)), rule)
    await rules.registry.rollBackTag(rollback, admin(writer))
    await rules.registry.deleteManifest(name, parseReference('prod'), writer)
    const undeletion = { name, tag: parseTag('prod'), force: false }
    await refused(rules.registry.undeleteTag(undeletion, admin(stranger)), rule)
    await rules.registry.undeleteTag(undeletion, admin(writer))
    assert.equal(await digestOf('prod'), sha256(bytes('one')))
  })

  test('keeps its repository, and the manifest it is on, from those who are no writers', async () => {
    const image = await pushImage(rules.registry, 'kept/app', 'prod')
    const rule = await addTagRule(database.db, { pattern: 'kept/**', tags: 'prod', protected: true })
    await refused(rules.registry.deleteManifest(parseName('kept/app'), parseReference(image), PUSHER), rule)
    await refused(rules.registry.deleteRepository(parseName('kept/app'), ADMIN), rule)
  })

  test('a writer that is removed is one no more, and its rule protects on', async () => {
    const principalId = await addPrincipal(database.db, 'leaving')
    const rule = await addTagRule(database.db, { tags: 'left', protected: true, principalIds: [principalId] })
    await database.db.transaction(tx => tx.query('delete from principal where id = $1', [principalId]))
    await refused(pushText('left', 'left'), rule)
  })
})

test('that a tag is protected does not concern a mirror, which writes what its upstream says', () => {
  const rule = { immutable: false, protected: true, may_expire: false, is_writer: false }
  for (const change of ['created', 'moved', 'deleted'] as const) {
    assert.equal(tagRefusal(rule, change, {}), 'protected')
    assert.equal(tagRefusal(rule, change, { isMirror: true }), undefined)
  }
  assert.equal(tagRefusal(rule, 'deleted', { isMirror: true, isRetention: true }), undefined)
  assert.equal(tagRefusal({ ...rule, immutable: true }, 'moved', { isMirror: true }), 'immutable')
})

test('retention removes what a rule lets expire, and nothing else that a rule keeps', async () => {
  const retention = { isRetention: true } as const
  const rule = { immutable: true, protected: true, may_expire: false, is_writer: false }
  assert.equal(tagRefusal(rule, 'deleted', retention), 'immutable')
  assert.equal(tagRefusal({ ...rule, immutable: false }, 'deleted', retention), 'protected')
  assert.equal(tagRefusal({ ...rule, may_expire: true }, 'deleted', retention), undefined)
  assert.equal(tagRefusal({ ...rule, may_expire: true }, 'moved', retention), 'immutable')
  assert.equal(tagRefusal({ ...rule, may_expire: true }, 'deleted', {}), 'immutable')
  await addTagRule(database.db, { tags: 'keep*', immutable: true })
  await addTagRule(database.db, { tags: 'nightly*', immutable: true, mayExpire: true })
  await database.db.transaction(async tx => {
    const guard = await openTagGuard(tx, name, retention)
    guard.check('nightly-1', 'deleted')
    assert.throws(() => guard.check('keep-1', 'deleted'), RegistryError)
  })
})

test('the tag of a mirror that nobody asks for stays where a rule keeps it, and others go on expiring', async () => {
  await pushImage(rules.registry, 'mirror/app', 'kept')
  await pushImage(rules.registry, 'mirror/app', 'unused')
  await addTagRule(database.db, { pattern: 'mirror/**', tags: 'kept', immutable: true })
  const mirror = parseName('mirror/app')
  const tags = new MirroredTags({
    db: database.db,
    stores: new Stores({ store: rules.store }),
    lifetimes: { leaseMs: 1, untaggedRetentionMs: 1, deleteGraceMs: 1, uploadExpiryMs: 1, trashGraceMs: 1 },
    requireBlobs: true,
    requireChildren: false,
    allowChildDelete: false,
  })
  for (const tag of ['kept', 'unused']) await tags.confirm(mirror, parseTag(tag))
  await tags.expire(-1_000, () => true, new AbortController().signal)
  const { items } = await rules.registry.listTags(mirror, '', 10, PUSHER)
  assert.deepEqual(items, ['kept'])
})
