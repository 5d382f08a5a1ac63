import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import { after, before, suite, test } from 'node:test'
import type { Database } from '../../src/metadata/database.ts'
import { listSyncItems } from '../../src/metadata/sync-items.ts'
import { type SyncRunWithTotals, findSyncRun, insertSyncRun, listSyncRuns } from '../../src/metadata/sync-runs.ts'
import { UpstreamFailure } from '../../src/mirror/upstream-failure.ts'
import { type Digest, digestOf } from '../../src/oci/digest.ts'
import { OCI_MANIFEST } from '../../src/oci/media-types.ts'
import type { Content, Source, Target } from '../../src/sync/sides.ts'
import { forgetSyncRuns, runSync, startDueRun } from '../../src/sync/sync.ts'
import type { SyncContext } from '../../src/sync/work-off.ts'
import type { Sync } from '../../src/sync/work.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { imageOf } from '../support/client.ts'

const NEVER = new AbortController().signal
const BYTES = Buffer.from(JSON.stringify(imageOf()))
const sha256 = (bytes: Uint8Array): Digest => digestOf('sha256', createHash('sha256').update(bytes).digest('hex'))
const IMAGE: Content = { mediaType: OCI_MANIFEST, bytes: BYTES }

/** A registry of one image under several tags, and one that takes it. */
interface Scene {
  readonly context: SyncContext
  /** In order: `resolve TAG`, `blob`, `manifest`, `tag TAG`. */
  readonly did: string[]
  /** Waited for before a tag is resolved. */
  before: (tag: string) => Promise<void>
}

function sceneOf(db: Database, name: string, more: Partial<Sync> = {}, lease?: SyncContext['lease']): Scene {
  const did: string[] = []
  const taken = new Map<string, Digest>()
  const scene: Scene = { did, before: () => Promise.resolve(), context: undefined as unknown as SyncContext }
  const source: Source = {
    repositories: () => Promise.resolve(['team/app']),
    tags: () => Promise.resolve(['a', 'b', 'c']),
    async resolve(_repository, tag) {
      await scene.before(tag)
      did.push(`resolve ${tag}`)
      return sha256(BYTES)
    },
    manifest: () => Promise.resolve(IMAGE),
    referrers: () => Promise.resolve([]),
    blob: () => Promise.resolve({ body: Readable.from([Buffer.from('{}')]), start: 0, size: 2 }),
  }
  const target: Target = {
    mayLackBlobs: false,
    resolve: (_repository, tag) => Promise.resolve(taken.get(tag)),
    find: () => Promise.resolve(did.includes('manifest') ? {} : undefined),
    putBlob(_repository, _digest, { onBytes }) {
      did.push('blob')
      onBytes(2)
      return Promise.resolve(2)
    },
    putManifest() {
      did.push('manifest')
      return Promise.resolve()
    },
    tag(_repository, tag, digest) {
      did.push(`tag ${tag}`)
      taken.set(tag, digest)
      return Promise.resolve()
    },
  }
  const sync: Sync = {
    name,
    repositories: ['team/app'],
    stripPrefix: undefined,
    addPrefix: undefined,
    tags: {
      match: ['*'],
      exclude: [],
      versions: undefined,
      prereleases: false,
      newest: undefined,
      newestBy: 'version',
    },
    platforms: undefined,
    referrers: false,
    schedule: undefined,
    timeZone: 'UTC',
    maxConcurrent: 1,
    ...more,
  }
  const open: SyncContext['open'] = () => ({ source, target, [Symbol.asyncDispose]: () => Promise.resolve() })
  const context = { db, sync, open, onEnd: () => undefined, ...(lease === undefined ? {} : { lease }) }
  return Object.assign(scene, { context })
}

void suite('runs of syncs', () => {
  let database: TestDatabase
  let db: Database

  before(async () => {
    database = await withDatabase()
    ;({ db } = database)
  })
  after(() => database.close())

  async function ask(name: string): Promise<number> {
    const id = await db.transaction(tx => insertSyncRun(tx, { name, isDry: false, askedBy: 'test' }))
    assert.ok(id !== undefined)
    return id
  }
  async function runOf(id: number): Promise<SyncRunWithTotals> {
    const run = await findSyncRun(db, id)
    assert.ok(run !== undefined)
    return run
  }

  test('content comes before what names it, and a tag last', async () => {
    const { context, did } = sceneOf(db, 'order')
    const id = await ask('order')
    await runSync(context, NEVER)
    assert.deepEqual(did.slice(0, 4), ['resolve a', 'blob', 'manifest', 'tag a'])
    const { state, copied, images } = await runOf(id)
    assert.deepEqual({ state, copied, images }, { state: 'done', copied: 3, images: 3 })
  })

  test('two processes that look at once work on a run once', async () => {
    const other = await database.another()
    const scenes = [sceneOf(db, 'twice'), sceneOf(other, 'twice')]
    await ask('twice')
    await Promise.all(scenes.map(({ context }) => runSync(context, NEVER)))
    const tagged = scenes.flatMap(({ did }) => did.filter(each => each.startsWith('tag')))
    assert.deepEqual(tagged.toSorted(), ['tag a', 'tag b', 'tag c'])
  })

  test('there is one run of a sync at a time', async () => {
    await ask('one')
    const second = await db.transaction(tx => insertSyncRun(tx, { name: 'one', isDry: true, askedBy: 'test' }))
    assert.equal(second, undefined)
  })

  test('a schedule that is due asks for one run, however many processes look, and begins with a time to come', async () => {
    const scene = sceneOf(db, 'due', { schedule: '0 3 * * *' })
    await startDueRun(scene.context)
    assert.deepEqual(await listSyncRuns(db, 'due', undefined, 10), [])
    await db.transaction(
      async tx =>
        void (await tx.query(`update sync_schedule set next_run_at = now() - interval '1 day' where name = 'due'`)),
    )
    const other = await database.another()
    await Promise.all([db, other, db, other].map(each => startDueRun({ ...scene.context, db: each })))
    const runs = await listSyncRuns(db, 'due', undefined, 10)
    assert.deepEqual(
      runs.map(({ asked_by: askedBy, state }) => [askedBy, state]),
      [['schedule', 'waiting']],
    )
    const rows = await db.query<{ later: boolean }>(
      `select next_run_at > clock_timestamp() as later from sync_schedule where name = 'due'`,
    )
    assert.deepEqual(rows, [{ later: true }])
  })

  test('who was taken over writes nothing more, and the other goes on with what is left', async () => {
    const late = sceneOf(db, 'late')
    const id = await ask('late')
    const [reached, gate] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    late.before = async tag => {
      if (tag !== 'b') return
      reached.resolve()
      await gate.promise
    }
    const working = runSync(late.context, NEVER)
    await reached.promise
    await db.transaction(
      async tx => void (await tx.query(`update sync_run set lease_until = '-infinity' where id = $1`, [id])),
    )
    const next = sceneOf(db, 'late')
    await runSync(next.context, NEVER)
    assert.ok(!next.did.includes('resolve a'))
    gate.resolve()
    await working
    assert.ok(!late.did.includes('resolve c'))
    const { state, copied } = await runOf(id)
    assert.deepEqual({ state, copied }, { state: 'done', copied: 3 })
  })

  test('a process that stops lets the next go on at once', async () => {
    const stopping = new AbortController()
    const one = sceneOf(db, 'stop')
    const id = await ask('stop')
    one.before = async tag => {
      if (tag === 'b') stopping.abort(new Error('stopping'))
      stopping.signal.throwIfAborted()
    }
    await assert.rejects(runSync(one.context, stopping.signal), /stopping/)
    assert.equal((await runOf(id)).state, 'waiting')
    const two = sceneOf(db, 'stop')
    await runSync(two.context, NEVER)
    assert.equal((await runOf(id)).state, 'done')
    assert.ok(!two.did.includes('resolve a'))
  })

  test('what fails with one image is its result; what is wrong here ends the run with the reason', async () => {
    const failing = sceneOf(db, 'failing')
    failing.before = async tag => {
      if (tag === 'a') throw new UpstreamFailure('refused', 'it is not to be had')
      if (tag === 'b') throw new Error('no space left on device')
    }
    const id = await ask('failing')
    await runSync(failing.context, NEVER)
    const { state, error } = await runOf(id)
    assert.deepEqual({ state, error }, { state: 'failed', error: 'no space left on device' })
    const items = await listSyncItems(db, id, undefined, { repository: '', tag: '' }, 10)
    assert.deepEqual(
      items.map(({ tag, outcome, reason }) => [tag, outcome, reason]),
      [
        ['a', 'failed', 'it is not to be had'],
        ['b', null, null],
        ['c', null, null],
      ],
    )
  })

  test('runs are forgotten with their items once they are old', async () => {
    const { context } = sceneOf(db, 'old')
    const id = await ask('old')
    await runSync(context, NEVER)
    await db.transaction(
      async tx =>
        void (await tx.query(`update sync_run set created_at = now() - interval '91 days' where id = $1`, [id])),
    )
    await forgetSyncRuns(db, 90 * 86_400_000, NEVER)
    assert.equal(await findSyncRun(db, id), undefined)
    assert.deepEqual(await listSyncItems(db, id, undefined, { repository: '', tag: '' }, 10), [])
  })
})
