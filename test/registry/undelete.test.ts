import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { sweep } from '../../src/gc/sweep.ts'
import type { Digest } from '../../src/oci/digest.ts'
import { RegistryError } from '../../src/oci/errors.ts'
import { type RepositoryName, parseName, parseReference, parseTag } from '../../src/oci/name.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { assertUsageIsTrue } from '../support/usage.ts'
import {
  ADMIN,
  PUSHER,
  type TestRegistry,
  letTimePass,
  pushBlob,
  pushImage,
  pushIndex,
  withRegistry,
} from '../support/registry.ts'

const HOUR_MS = 3_600_000

let database: TestDatabase
let rules: TestRegistry
let turn = 0
before(async () => {
  database = await withDatabase()
  rules = await withRegistry(database.db)
})
after(async () => {
  await rules.close()
  await assertUsageIsTrue(database.db)
  await database.close()
})

/** A repository of its own for each test. */
const fresh = (): RepositoryName => parseName(`undelete/r${(turn += 1)}`)
const remove = async (name: RepositoryName, reference: string): Promise<void> =>
  await rules.registry.deleteManifest(name, parseReference(reference), PUSHER)
const force = async (name: RepositoryName, reference: string): Promise<void> =>
  await rules.registry.deleteManifestByAdmin({ name, reference: parseReference(reference), force: true }, ADMIN)
const undelete = async (name: RepositoryName, digest: Digest) =>
  await rules.registry.undeleteManifest(name, digest, ADMIN)
const undeleteTag = async (name: RepositoryName, tag: string, forced = false) =>
  await rules.registry.undeleteTag({ name, tag: parseTag(tag), force: forced }, ADMIN)

/** The digest that a reference pulls, or undefined. */
async function pulled(name: RepositoryName, reference: string): Promise<Digest | undefined> {
  try {
    const info = await rules.registry.statManifest(name, parseReference(reference), { mayPush: false })
    return info.digest
  } catch (error) {
    if (error instanceof RegistryError && error.code === 'MANIFEST_UNKNOWN') return undefined
    throw error
  }
}
const referrers = async (name: RepositoryName, subject: Digest): Promise<Digest[]> => {
  const ask = { artifactTypes: [], last: '', limit: undefined }
  return (await rules.registry.listReferrers(name, subject, ask, PUSHER)).items.map(({ digest }) => digest)
}
async function refused(work: Promise<unknown>, code: string, message: RegExp): Promise<void> {
  await assert.rejects(work, (error: unknown) => {
    assert.ok(error instanceof RegistryError, String(error))
    assert.equal(error.code, code)
    assert.match(error.message, message)
    return true
  })
}
const collect = async (): Promise<void> =>
  void (await sweep(database.db, { batch: 100, leaseMs: HOUR_MS, trashGraceMs: HOUR_MS }, () => Promise.resolve()))

void suite('undelete', () => {
  test('brings a tag back with the digest it had, and its own history says so', async () => {
    const name = fresh()
    const image = await pushImage(rules.registry, name, 'v1')
    await remove(name, 'v1')
    assert.equal(await pulled(name, 'v1'), undefined)
    assert.deepEqual(await undeleteTag(name, 'v1'), { digest: image, tags: ['v1'], manifests: [] })
    assert.equal(await pulled(name, 'v1'), image)
    const { items } = await rules.registry.listTagHistory({ name, tag: parseTag('v1') }, { last: undefined, limit: 9 })
    assert.deepEqual(
      items.map(({ from, to, action }) => [from, to, action]),
      [
        [null, image, 'undelete'],
        [image, null, 'delete'],
        [null, image, 'push'],
      ],
    )
  })

  test('brings a manifest back with the tags that its deletion took, but not with one that was deleted before', async () => {
    const name = fresh()
    const image = await pushImage(rules.registry, name, 'a')
    const bytes = await rules.registry.readManifest(
      await rules.registry.statManifest(name, parseReference('a'), PUSHER),
    )
    const tags = ['b', 'before'].map(parseTag)
    await rules.registry.pushManifest(
      { name, reference: parseReference(image), tags, contentType: undefined, bytes },
      PUSHER,
    )
    await remove(name, 'before')
    await remove(name, image)
    assert.equal(await pulled(name, image), undefined)
    assert.deepEqual(await undelete(name, image), { digest: image, tags: ['a', 'b'], manifests: [image] })
    assert.deepEqual(await Promise.all(['a', 'b', 'before'].map(tag => pulled(name, tag))), [image, image, undefined])
    const again = await rules.registry.readManifest(
      await rules.registry.statManifest(name, parseReference('a'), PUSHER),
    )
    assert.deepEqual(again, bytes)
  })

  test('a tag whose manifest was deleted brings that back as well', async () => {
    const name = fresh()
    const image = await pushImage(rules.registry, name, 'v1')
    await remove(name, image)
    assert.deepEqual(await undeleteTag(name, 'v1'), { digest: image, tags: ['v1'], manifests: [image] })
    assert.equal(await pulled(name, 'v1'), image)
  })

  test('brings an index back with the children and referrers that were deleted after it (spec: Deleting Manifests)', async () => {
    const name = fresh()
    const child = await pushImage(rules.registry, name, undefined)
    const inner = await pushIndex(rules.registry, name, undefined, [child])
    const index = await pushIndex(rules.registry, name, 'multi', [inner])
    const signature = await pushImage(rules.registry, name, undefined, { subject: index })
    const childSignature = await pushImage(rules.registry, name, undefined, { subject: child })
    for (const digest of [index, signature, inner, child, childSignature]) await remove(name, digest)
    assert.deepEqual(await referrers(name, index), [])
    const { manifests, tags } = await undelete(name, index)
    assert.deepEqual(tags, ['multi'])
    assert.deepEqual([...manifests].toSorted(), [index, signature, inner, child, childSignature].toSorted())
    assert.deepEqual(await referrers(name, index), [signature])
    assert.deepEqual(await referrers(name, child), [childSignature])
    for (const digest of manifests) assert.equal(await pulled(name, digest), digest)
  })

  test('leaves what was deleted before the manifest deleted: a child by force, a signature that was withdrawn', async () => {
    const name = fresh()
    const bad = await pushImage(rules.registry, name, undefined)
    const good = await pushImage(rules.registry, name, undefined)
    const index = await pushIndex(rules.registry, name, 'multi', [bad, good])
    const withdrawn = await pushImage(rules.registry, name, undefined, { subject: index })
    await remove(name, withdrawn)
    await force(name, bad)
    await remove(name, index)
    assert.deepEqual((await undelete(name, index)).manifests, [index])
    assert.deepEqual(await referrers(name, index), [])
    assert.deepEqual([await pulled(name, bad), await pulled(name, good)], [undefined, good])
    assert.deepEqual((await undelete(name, bad)).manifests, [bad])
  })

  test('what came back outlives the collection that would have ended it, with children, referrers and layers', async () => {
    const name = fresh()
    const layer = await pushBlob(rules.registry, name)
    const child = await pushImage(rules.registry, name, undefined, { layers: [layer] })
    const index = await pushIndex(rules.registry, name, 'multi', [child])
    const signature = await pushImage(rules.registry, name, undefined, { subject: index })
    await remove(name, index)
    await undelete(name, index)
    for (let round = 0; round < 3; round += 1) {
      await letTimePass(database.db)
      await collect()
    }
    for (const digest of [index, child, signature]) assert.equal(await pulled(name, digest), digest)
    assert.equal((await rules.registry.statBlob(name, layer, PUSHER)).size, 64)
  })

  test('is refused once the grace is over, before and after the collector has been there', async () => {
    const name = fresh()
    const image = await pushImage(rules.registry, name, 'v1')
    await remove(name, image)
    await letTimePass(database.db)
    await refused(undelete(name, image), 'NOT_FOUND', /nothing is left/)
    await collect()
    await refused(undelete(name, image), 'NOT_FOUND', /nothing is left/)
    await refused(undeleteTag(name, 'v1'), 'NOT_FOUND', /nothing is left/)
  })

  test('of a tag that is there with another digest is refused, and with force moves it', async () => {
    const name = fresh()
    const old = await pushImage(rules.registry, name, 'v1')
    await remove(name, 'v1')
    const present = await pushImage(rules.registry, name, 'v1')
    await refused(undeleteTag(name, 'v1'), 'CONFLICT', new RegExp(`another digest, ${present}`))
    assert.equal(await pulled(name, 'v1'), present)
    await undeleteTag(name, 'v1', true)
    assert.equal(await pulled(name, 'v1'), old)
    assert.equal(await pulled(name, present), present)
  })

  test('of a manifest leaves a tag that was pushed since where it points now', async () => {
    const name = fresh()
    const old = await pushImage(rules.registry, name, 'v1')
    await remove(name, old)
    const present = await pushImage(rules.registry, name, 'v1')
    assert.deepEqual((await undelete(name, old)).tags, [])
    assert.equal(await pulled(name, 'v1'), present)
  })

  test('gives a manifest that was pushed again by its digest the tags that went with it', async () => {
    const name = fresh()
    const image = await pushImage(rules.registry, name, 'v1')
    const bytes = await rules.registry.readManifest(
      await rules.registry.statManifest(name, parseReference('v1'), PUSHER),
    )
    await remove(name, image)
    const push = { name, reference: parseReference(image), tags: [], contentType: undefined, bytes }
    await rules.registry.pushManifest(push, PUSHER)
    assert.deepEqual(await undelete(name, image), { digest: image, tags: ['v1'], manifests: [] })
  })

  test('again changes nothing, and of what never was is refused', async () => {
    const name = fresh()
    const image = await pushImage(rules.registry, name, 'v1')
    await remove(name, image)
    await undelete(name, image)
    assert.deepEqual(await undelete(name, image), { digest: image, tags: [], manifests: [] })
    assert.deepEqual(await undeleteTag(name, 'v1'), { digest: image, tags: ['v1'], manifests: [] })
    await refused(undeleteTag(name, 'never'), 'NOT_FOUND', /no deletion/)
    await refused(undelete(parseName('undelete/nowhere'), image), 'NAME_UNKNOWN', /not known/)
  })

  test('is refused where a layer was deleted since, until that is pushed again', async () => {
    const name = fresh()
    const bytes = Buffer.from(`a layer of ${name}`)
    const layer = await pushBlob(rules.registry, name, bytes)
    const image = await pushImage(rules.registry, name, 'v1', { layers: [layer] })
    await remove(name, image)
    await rules.registry.deleteBlob(name, layer, PUSHER)
    await refused(undelete(name, image), 'CONFLICT', new RegExp(layer))
    assert.equal(await pulled(name, image), undefined)
    await pushBlob(rules.registry, name, bytes)
    await undelete(name, image)
    await refused(rules.registry.deleteBlob(name, layer, PUSHER), 'UNSUPPORTED', /in use/)
  })
})

void suite('a child of a living index', () => {
  test('is deleted by force only, and the index stays (spec: Deleting Manifests)', async () => {
    const name = fresh()
    const child = await pushImage(rules.registry, name, undefined)
    const index = await pushIndex(rules.registry, name, 'multi', [child])
    const reference = parseReference(child)
    await refused(remove(name, child), 'UNSUPPORTED', /delete the index first/)
    const gentle = rules.registry.deleteManifestByAdmin({ name, reference, force: false }, ADMIN)
    await refused(gentle, 'UNSUPPORTED', /delete the index first/)
    await force(name, child)
    assert.deepEqual([await pulled(name, child), await pulled(name, index)], [undefined, index])
  })

  // https://github.com/distribution/distribution/issues/3178: an index may name what this registry never had.
  test('that was never here keeps an index from nothing: it is deleted and comes back as it was', async () => {
    const name = fresh()
    const absent = `sha256:${'0'.repeat(64)}` as Digest
    const child = await pushImage(rules.registry, name, undefined)
    const index = await pushIndex(rules.registry, name, 'sparse', [absent, child])
    await remove(name, index)
    assert.deepEqual((await undelete(name, index)).tags, ['sparse'])
    assert.deepEqual([await pulled(name, index), await pulled(name, child)], [index, child])
  })
})

// https://github.com/distribution/distribution/issues/4939 and #4461: a deletion takes what others still use.
test('a deletion and its collection leave a layer and a child that another image or index names', async () => {
  const name = fresh()
  const layer = await pushBlob(rules.registry, name)
  const shared = await pushImage(rules.registry, name, undefined, { layers: [layer] })
  const going = await pushIndex(rules.registry, name, 'going', [shared])
  const staying = await pushIndex(rules.registry, name, 'staying', [
    shared,
    await pushImage(rules.registry, name, undefined),
  ])
  await remove(name, going)
  await letTimePass(database.db)
  await collect()
  assert.deepEqual([await pulled(name, going), await pulled(name, staying)], [undefined, staying])
  assert.equal(await pulled(name, shared), shared)
  assert.equal((await rules.registry.statBlob(name, layer, PUSHER)).size, 64)
})

// https://github.com/goharbor/harbor/issues/23570: pulled by digest alone, content is untagged and collected at once.
test('what is pulled by digest after its tag was deleted stays for the grace, with its referrers', async () => {
  const name = fresh()
  const image = await pushImage(rules.registry, name, 'v1')
  const signature = await pushImage(rules.registry, name, undefined, { subject: image })
  await remove(name, 'v1')
  await collect()
  assert.equal(await pulled(name, image), image)
  assert.deepEqual(await referrers(name, image), [signature])
})
