import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { parseName, parseReference, parseTag } from '../../src/oci/name.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { ADMIN, PUSHER, type TestRegistry, pushBlob, pushImage, withRegistry } from '../support/registry.ts'

const name = parseName('team/app')
const ALICE = { ...PUSHER, principal: 'alice' }

void suite('every visible change is an event that says who made it', () => {
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

  async function lastEvent(): Promise<{ kind: string; detail: Readonly<Record<string, unknown>> } | undefined> {
    const rows = await index.db.query<{ kind: string; detail: Record<string, unknown> }>(
      'select kind, detail from event order by seq desc limit 1',
    )
    return rows[0]
  }

  test('deleting a tag (distribution-spec, Deleting tags)', async () => {
    const digest = await pushImage(opened.registry, name, 'v1')
    await opened.registry.deleteManifest(name, parseReference('v1'), ALICE)
    assert.deepEqual(await lastEvent(), { kind: 'tag.delete', detail: { tag: 'v1', digest, principal: 'alice' } })
  })

  test('deleting a manifest (distribution-spec, Deleting Manifests)', async () => {
    const digest = await pushImage(opened.registry, name, 'v2')
    await opened.registry.deleteManifest(name, parseReference(digest), ALICE)
    assert.deepEqual(await lastEvent(), { kind: 'manifest.delete', detail: { digest, tags: 1, principal: 'alice' } })
  })

  test('deleting a blob (distribution-spec, Deleting Blobs)', async () => {
    const digest = await pushBlob(opened.registry, name)
    await opened.registry.deleteBlob(name, digest, ALICE)
    assert.deepEqual(await lastEvent(), { kind: 'blob.delete', detail: { digest, principal: 'alice' } })
  })

  test('bringing a manifest back, with what came with it and the tags that point to it again', async () => {
    const digest = await pushImage(opened.registry, name, 'v3')
    await opened.registry.deleteManifest(name, parseReference(digest), ALICE)
    await opened.registry.undeleteManifest(name, digest, ADMIN)
    const rows = await index.db.query<{ kind: string; detail: object }>(
      'select kind, detail from event order by seq desc limit 2',
    )
    assert.deepEqual(rows, [
      { kind: 'tag.move', detail: { tags: ['v3'], digest, action: 'undelete', principal: 'admin' } },
      { kind: 'manifest.undelete', detail: { digest, manifests: [digest], principal: 'admin' } },
    ])
  })

  test('rolling a tag back', async () => {
    const digest = await pushImage(opened.registry, name, 'v4')
    await pushImage(opened.registry, name, 'v4')
    await opened.registry.rollBackTag({ name, tag: parseTag('v4'), target: { steps: 1 } }, ADMIN)
    const detail = { tags: ['v4'], digest, action: 'rollback', principal: 'admin' }
    assert.deepEqual(await lastEvent(), { kind: 'tag.move', detail })
  })

  test('deleting a repository and bringing it back', async () => {
    const { id } = await opened.registry.describeRepository(name)
    await opened.registry.deleteRepository(name, ADMIN)
    assert.deepEqual(await lastEvent(), { kind: 'repository.delete', detail: { id, principal: 'admin' } })
    await opened.registry.undeleteRepository({ name, id: undefined }, ADMIN)
    assert.deepEqual(await lastEvent(), { kind: 'repository.undelete', detail: { id, principal: 'admin' } })
  })
})
