import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { PassThrough } from 'node:stream'
import { after, afterEach, before, beforeEach, describe, it } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { purgeTrash } from '../../src/gc/purge.ts'
import { sweepLinks } from '../../src/gc/sweep.ts'
import type { Database } from '../../src/metadata/database.ts'
import { parseName, parseTag } from '../../src/oci/name.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import {
  PUSHER,
  type TestRegistry,
  imageOf,
  letTimePass,
  pushBlob,
  pushIndex,
  pushManifest,
  sha256,
  withRegistry,
} from '../support/registry.ts'
import { blobFault, pullFault } from './model-pull.ts'
import type { Sweep } from './model-world.ts'
import { SWEEPS } from './sweeps.ts'

const OPTIONS = { batch: 10, leaseMs: 3_600_000, trashGraceMs: 3_600_000 }
const REPOSITORY = 'team/app'
const TAG = 'latest'
const name = parseName(REPOSITORY)
const LOOK_MS = 5

/** A database whose transactions wait at one point until they are let go; `reached` once the first one is there. */
interface HeldDatabase {
  readonly db: Database
  readonly reached: Promise<void>
  letGo(): void
}

function hold(db: Database, where: 'at begin' | 'at commit'): HeldDatabase {
  const reached = Promise.withResolvers<void>()
  const gate = Promise.withResolvers<void>()
  const wait = async (at: typeof where): Promise<void> => {
    if (at !== where) return
    reached.resolve()
    await gate.promise
  }
  const transaction: Database['transaction'] = async work => {
    await wait('at begin')
    return await db.transaction(async tx => {
      const result = await work(tx)
      await wait('at commit')
      return result
    })
  }
  return {
    db: {
      driver: db.driver,
      query: db.query.bind(db),
      changes: db.changes.bind(db),
      load: db.load.bind(db),
      close: db.close.bind(db),
      transaction,
    },
    reached: reached.promise,
    letGo: () => gate.resolve(),
  }
}

void describe('in the one moment that a broken sweep gets wrong, the real one loses nothing (race.postgres.ts looks for more)', () => {
  let index: TestDatabase
  let other: Database
  let test: TestRegistry

  before(async () => {
    index = await withDatabase()
    other = await index.another()
  })
  after(() => index.close())
  beforeEach(async () => {
    test = await withRegistry(index.db)
  })
  afterEach(async () => {
    await test.close()
    await index.db.transaction(tx => tx.query('truncate repository, blob, trash cascade'))
  })

  /** Deletes all bytes in the trash, as if their grace was over. */
  async function purge(): Promise<void> {
    await index.db.transaction(tx => tx.query(`update trash set purge_after = clock_timestamp() - interval '1 second'`))
    await purgeTrash(index.db, test.store)
  }

  /** Returns once `work` is done, or a statement of it waits for a row that another transaction holds. */
  async function doneOrBlocked(work: Promise<unknown>): Promise<void> {
    const done = work.then(() => true)
    while (!(await Promise.race([done, delay(LOOK_MS, false)]))) {
      const waiting = await index.db.query(
        `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
      )
      if (waiting.length > 0) return
    }
  }

  async function until(condition: string): Promise<void> {
    while ((await index.db.query(`select where ${condition}`)).length === 0) await delay(LOOK_MS)
  }

  /** What is broken after each scene, or undefined. */
  const scenes: Record<string, { broken: Sweep; play: (sweep: Sweep) => Promise<string | undefined> }> = {
    'an old layer is promised to a pusher while its link is judged': {
      broken: SWEEPS.merged,
      async play(sweep) {
        const layer = await pushBlob(test.registry, REPOSITORY)
        await letTimePass(index.db)
        const held = hold(other, 'at commit')
        const slow = await withRegistry(held.db, { store: test.store })
        const promising = slow.registry.statBlob(name, layer, PUSHER)
        await held.reached
        const sweeping = sweep(index.db, OPTIONS)
        await doneOrBlocked(sweeping)
        held.letGo()
        await Promise.all([promising, sweeping])
        await slow.close()
        return await blobFault(test.registry, test.store, name, layer)
      },
    },
    'content is pushed again whose bytes were given up before': {
      broken: SWEEPS.early,
      async play(sweep) {
        const content = randomBytes(64)
        await pushBlob(test.registry, REPOSITORY, content)
        await letTimePass(index.db)
        await sweepLinks(index.db, OPTIONS)
        await sweep(index.db, OPTIONS)
        await purge()
        await pushBlob(test.registry, REPOSITORY, content)
        return await blobFault(test.registry, test.store, name, sha256(content))
      },
    },
    'an index was there before the image that it names': {
      broken: SWEEPS.bound,
      async play(sweep) {
        const image = imageOf(await pushBlob(test.registry, REPOSITORY))
        await pushIndex(test.registry, REPOSITORY, TAG, [image.digest])
        await pushManifest(test.registry, REPOSITORY, undefined, image)
        await letTimePass(index.db)
        await sweep(index.db, OPTIONS)
        return await pullFault(test, name, parseTag(TAG))
      },
    },
    'an upload that was found expired is finished before it is discarded': {
      broken: SWEEPS.careless,
      async play(sweep) {
        const content = randomBytes(64)
        const digest = sha256(content)
        const id = await test.registry.startUpload(name, PUSHER)
        const stream = new PassThrough()
        const { signal } = new AbortController()
        const finishing = test.registry.finishUpload({ name, id }, digest, { stream, start: undefined, signal })
        await until('exists (select from upload where lease_until is not null)')
        await index.db.transaction(tx => tx.query(`update upload set expires_at = clock_timestamp()`))
        const held = hold(other, 'at begin')
        const sweeping = sweep(held.db, OPTIONS)
        await held.reached
        stream.end(content)
        await finishing
        held.letGo()
        await sweeping
        await purge()
        return await blobFault(test.registry, test.store, name, digest)
      },
    },
  }

  for (const [scene, { broken, play }] of Object.entries(scenes)) {
    void it(scene, async () => {
      assert.equal(await play(SWEEPS.real), undefined)
    })
    void it(`${scene}: a sweep that is broken there is found guilty`, async () => {
      assert.notEqual(await play(broken), undefined)
    })
  }
})
