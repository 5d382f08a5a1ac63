import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { type WalkCursor, type WalkProgress, walkIndex } from '../../src/gc/consistency.ts'
import { sweep } from '../../src/gc/sweep.ts'
import { type Turn, takeTurn } from '../../src/gc/work.ts'
import type { WalkedTable } from '../../src/metadata/consistency.ts'
import { parseName } from '../../src/oci/name.ts'
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

const OPTIONS = { batch: 100, leaseMs: 3_600_000, trashGraceMs: 3_600_000 }
const NAME = 'team/app'

void suite('the walk over the index gives back to the collector what it would have missed', () => {
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

  interface Seen {
    readonly drift: [WalkedTable, number][]
    turns: number
    progress: WalkProgress | undefined
  }

  /** Walks to the end, in as many turns as it takes, none of which looks at more than `windows` windows of 3 rows. */
  async function walk(windows = 4): Promise<Seen> {
    const seen: Seen = { drift: [], turns: 0, progress: undefined }
    const { signal } = new AbortController()
    const onDrift = (table: WalkedTable, count: number): void => void seen.drift.push([table, count])
    const options = { db: index.db, window: 3, windows, leaseMs: 60_000, pause: () => Promise.resolve(), onDrift }
    const work = { name: 'consistency', everyMs: 0, signal } as const
    let isOver = false
    while (!isOver) {
      await takeTurn<WalkCursor, WalkProgress>(index.db, work, async turn => {
        const save: Turn<WalkCursor, WalkProgress>['save'] = async (cursor, progress) => {
          seen.progress = progress
          await turn.save(cursor, progress)
        }
        isOver = await walkIndex(options, { ...turn, save })
        return isOver
      })
      seen.turns += 1
    }
    return seen
  }

  const collect = async (): Promise<void> => void (await sweep(index.db, OPTIONS, () => Promise.resolve()))
  const run = (text: string): Promise<void> => index.db.transaction(tx => tx.script(text))
  const countOf = async (table: string): Promise<number> => (await index.db.query(`select from ${table}`)).length

  test('nothing is found where nothing was lost, whatever was pushed, tagged, referred to, moved and deleted', async () => {
    const { registry } = opened
    const name = parseName(NAME)
    const child = await pushImage(registry, NAME, undefined)
    await pushIndex(registry, NAME, 'multi', [child])
    await pushImage(registry, NAME, undefined, { subject: child })
    await pushImage(registry, NAME, 'moves')
    await pushImage(registry, NAME, 'moves')
    const deleted = await pushImage(registry, NAME, 'deleted')
    await registry.deleteManifest(name, { digest: deleted }, PUSHER)
    await pushBlob(registry, NAME)
    for (const judge of [async () => undefined, collect, letTimePass, collect]) {
      await judge(index.db)
      assert.deepEqual((await walk()).drift, [])
    }
  })

  test('links, manifests and blobs that nobody would look at are found over several turns, and then collected', async () => {
    const { registry } = opened
    const tagged = await pushImage(registry, NAME, 'stays')
    for (let count = 0; count < 5; count++) {
      await pushBlob(registry, NAME)
      await pushImage(registry, NAME, undefined)
    }
    // A blob without any link, as a bug or a hand in the database may leave it.
    const alone = await pushBlob(registry, NAME)
    await index.db.transaction(tx => tx.query('delete from repository_blob where digest = $1', [alone]))
    await run(`update manifest set lease_until = 'infinity'; update repository_blob set lease_until = 'infinity'`)
    await letTimePass(index.db)
    await collect()
    const before = await countOf('blob')

    const { drift, turns, progress } = await walk(2)
    const total = (table: WalkedTable): number =>
      drift.reduce((sum, [of, count]) => sum + (of === table ? count : 0), 0)
    assert.ok(turns > 3, `${turns} turns`)
    assert.ok(total('manifest') >= 5 && total('link') >= 5, JSON.stringify(drift))
    assert.equal(total('blob'), 1)
    assert.equal(progress?.manifest, total('manifest'))
    assert.ok((progress?.looked ?? 0) >= before)
    assert.deepEqual((await walk()).drift, [], 'what was given back is not found again')
    for (let round = 0; round < 3; round++) {
      await letTimePass(index.db)
      await collect()
    }
    assert.equal((await registry.statManifest(parseName(NAME), { digest: tagged }, PUSHER)).digest, tagged)
    assert.ok((await countOf('blob')) < before - 10)
  })

  test('one process walks at a time, and the next goes on where it was', async () => {
    const { signal } = new AbortController()
    const work = { name: 'consistency', everyMs: 0, signal } as const
    let cursor: WalkCursor | undefined
    await takeTurn<WalkCursor, WalkProgress>(index.db, work, async turn => {
      assert.equal(await takeTurn(index.db, work, () => Promise.resolve(true)), false)
      await turn.save({ table: 'link', after: [7, 8] }, { looked: 9, manifest: 0, link: 0, blob: 0 })
      return false
    })
    await takeTurn<WalkCursor, WalkProgress>(index.db, work, turn => {
      cursor = turn.cursor
      return Promise.resolve(true)
    })
    assert.deepEqual(cursor, { table: 'link', after: [7, 8] })
  })

  test('a walk that ended is due again after its interval and not before', async () => {
    const { signal } = new AbortController()
    const work = { name: 'consistency', everyMs: 3_600_000, signal } as const
    assert.equal(await takeTurn(index.db, work, () => Promise.resolve(true)), false)
    await run(`update maintenance set finished_at = finished_at - interval '61 minutes'`)
    assert.equal(await takeTurn(index.db, work, () => Promise.resolve(true)), true)
  })
})
