import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { DUE_KINDS } from '../../src/access/collection-admin.ts'
import { type CollectionObserver, type CollectionProgress, collectNow } from '../../src/gc/collect.ts'
import { takeTurn } from '../../src/gc/work.ts'
import { parseName } from '../../src/oci/name.ts'
import { LOCAL, withAdministration } from '../support/administration.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import {
  PUSHER,
  type TestRegistry,
  letTimePass,
  pushBlob,
  pushImage,
  pushIndex,
  withRegistry,
} from '../support/registry.ts'

const OPTIONS = { batch: 3, leaseMs: 3_600_000, trashGraceMs: 3_600_000 }
const REPOSITORY = 'team/app'
const SILENT: CollectionObserver = { swept: () => undefined, purged: () => undefined, expired: () => undefined }
const PAGE = { last: '', limit: 1_000 }

void suite('a collection that is asked for', () => {
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

  const listed = async (): Promise<Map<string, readonly { digest: string | null; reason: string }[]>> => {
    const admin = withAdministration(index.db)
    const lists = await Promise.all(
      DUE_KINDS.map(async kind => [kind, (await admin.listCollectable(LOCAL, kind, PAGE)).items] as const),
    )
    return new Map(lists)
  }
  const collect = async (): Promise<void> => {
    const { signal } = new AbortController()
    const work = { name: 'collection', everyMs: undefined, signal } as const
    const collector = {
      db: index.db,
      stores: [opened.store],
      mayDelete: () => Promise.resolve(true),
      options: OPTIONS,
      observer: SILENT,
      signal,
    }
    await takeTurn<null, CollectionProgress>(index.db, work, turn =>
      collectNow({ ...collector, pause: () => Promise.resolve() }, turn),
    )
  }

  test('the dry run names what goes with the reason, and changes nothing; then exactly that goes', async () => {
    const { registry } = opened
    const admin = withAdministration(index.db)
    const name = parseName(REPOSITORY)
    const shared = await pushBlob(registry, REPOSITORY)
    await pushImage(registry, REPOSITORY, 'kept', { layers: [shared] })
    const child = await pushImage(registry, REPOSITORY, undefined)
    await pushIndex(registry, REPOSITORY, 'multi', [child])
    const signature = await pushImage(registry, REPOSITORY, undefined, { subject: child })
    const untagged = await pushImage(registry, REPOSITORY, undefined, { layers: [shared] })
    const deleted = await pushImage(registry, REPOSITORY, 'gone')
    await registry.deleteManifest(name, { digest: deleted }, PUSHER)
    const alone = await pushBlob(registry, REPOSITORY)
    const elsewhere = parseName('other/app')
    await registry.mountBlob({ name: elsewhere, digest: shared, from: name, visible: [] }, PUSHER)
    await registry.startUpload(name, PUSHER)
    await letTimePass(index.db)
    await index.db.transaction(tx => tx.query(`update upload set expires_at = clock_timestamp() - interval '1 second'`))

    const before = await listed()
    const again = await listed()
    assert.deepEqual(again, before)
    const digests = (kind: string): (string | null)[] => (before.get(kind) ?? []).map(({ digest }) => digest)
    assert.deepEqual(new Set(digests('manifest')), new Set([untagged, deleted]))
    assert.ok(!digests('manifest').includes(child) && !digests('manifest').includes(signature))
    const reasons = new Map(before.get('manifest')?.map(({ digest, reason }) => [digest, reason]))
    assert.match(reasons.get(untagged) ?? '', /no tag points to it/)
    assert.match(reasons.get(deleted) ?? '', /^deleted at \d{4}-/)
    assert.ok(digests('link').includes(alone))
    const links = before.get('link') ?? []
    assert.match(links.find(({ digest }) => digest === alone)?.reason ?? '', /bytes go to the trash/)
    assert.match(links.find(({ digest }) => digest === shared)?.reason ?? '', /other repositories keep it/)
    assert.equal(before.get('upload')?.length, 1)

    assert.equal(await admin.startCollection(LOCAL), 1)
    assert.equal((await admin.collectionStatus(LOCAL)).run.state, 'requested')
    await collect()
    const { run, queue } = await admin.collectionStatus(LOCAL)
    assert.deepEqual([run.run, run.state, run.failure], [1, 'finished', null])
    assert.equal(run.progress['manifests'], 2)
    assert.equal(run.progress['links'], links.length)
    assert.equal(run.progress['uploads'], 1)
    assert.ok((run.progress['trashedBytes'] ?? 0) >= 64)
    assert.equal(queue.due, 0)
    assert.equal(queue.unlinkedBlobs, 0)
    assert.ok(queue.trashBytes > 0)
    for (const digest of [child, signature]) {
      await registry.statManifest(name, { digest }, { mayPush: false })
    }
    await assert.rejects(registry.statManifest(name, { digest: untagged }, { mayPush: false }))

    await letTimePass(index.db)
    const freed = (await admin.collectionStatus(LOCAL)).queue
    assert.equal(freed.purgeable, freed.trash)
    assert.equal((await listed()).get('bytes')?.length, freed.purgeable)
    assert.equal(await admin.startCollection(LOCAL), 2)
    await collect()
    const second = (await admin.collectionStatus(LOCAL)).run
    assert.equal(second.progress['freedBytes'], freed.purgeableBytes)
  })

  test('pages of the dry run make up the whole list', async () => {
    for (let count = 0; count < 7; count++) await pushBlob(opened.registry, 'pages/app')
    await letTimePass(index.db)
    const admin = withAdministration(index.db)
    const whole = await admin.listCollectable(LOCAL, 'link', PAGE)
    const items: object[] = []
    let last: string | undefined = ''
    while (last !== undefined) {
      const page: { items: readonly object[]; next?: string } = await admin.listCollectable(LOCAL, 'link', {
        last,
        limit: 2,
      })
      items.push(...page.items)
      last = page.next
    }
    assert.ok(items.length >= 7)
    assert.deepEqual(items, whole.items)
  })

  test('who asks while a run is under way gets that run, and a run that fails says why and goes on', async () => {
    const admin = withAdministration(index.db)
    const first = await admin.startCollection(LOCAL)
    const { signal } = new AbortController()
    const work = { name: 'collection', everyMs: undefined, signal } as const
    await assert.rejects(
      takeTurn<null, CollectionProgress>(index.db, work, async () => {
        assert.equal(await admin.startCollection(LOCAL), first)
        const other = await takeTurn(index.db, work, () => Promise.resolve(true))
        assert.equal(other, false, 'one process at a time')
        throw new Error('the store is on fire')
      }),
      /on fire/,
    )
    const { run } = await admin.collectionStatus(LOCAL)
    assert.deepEqual([run.run, run.state, run.failure], [first, 'waiting', 'the store is on fire'])
    await collect()
    assert.deepEqual((await admin.collectionStatus(LOCAL)).run.run, first)
    assert.equal((await admin.collectionStatus(LOCAL)).run.state, 'finished')
    const kinds = (await admin.listAudit(LOCAL, { kind: 'collection.start' }, { last: '', limit: 10 })).items
    assert.ok(kinds.length >= 3, 'each is in the audit')
  })

  test('a run whose process died is taken over when its lease has ended', async () => {
    const admin = withAdministration(index.db)
    const run = await admin.startCollection(LOCAL)
    const { signal } = new AbortController()
    const work = { name: 'collection', everyMs: undefined, signal } as const
    await assert.rejects(
      takeTurn<null, CollectionProgress>(index.db, work, async turn => {
        await index.db.transaction(tx =>
          tx.query(`update maintenance set lease_until = clock_timestamp() - interval '1 second'`),
        )
        await collect()
        await turn.save(null, {} as CollectionProgress)
        return true
      }),
      { name: 'WorkLost' },
    )
    const status = await admin.collectionStatus(LOCAL)
    assert.deepEqual([status.run.run, status.run.state], [run, 'finished'])
  })
})
