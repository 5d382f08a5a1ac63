import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { after, before, suite, test } from 'node:test'
import { sweep } from '../../src/gc/sweep.ts'
import type { Database } from '../../src/metadata/database.ts'
import type { Digest } from '../../src/oci/digest.ts'
import { RegistryError } from '../../src/oci/errors.ts'
import { parseName, parseReference } from '../../src/oci/name.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { seeded } from '../support/random.ts'
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

const ROUNDS = 30
const HOUR_MS = 3_600_000
const REPOSITORY = 'ending/app'
const name = parseName(REPOSITORY)

void suite('an undelete while the grace ends', () => {
  let database: TestDatabase
  let collector: Database
  let rules: TestRegistry
  before(async () => {
    database = await withDatabase()
    collector = await database.another()
    rules = await withRegistry(database.db)
  })
  after(async () => {
    await rules.close()
    await database.close()
  })

  const isPulled = async (digest: Digest): Promise<boolean> =>
    await rules.registry.statManifest(name, { digest }, { mayPush: false }).then(
      () => true,
      () => false,
    )
  const collect = async (): Promise<void> =>
    void (await sweep(collector, { batch: 50, leaseMs: HOUR_MS, trashGraceMs: HOUR_MS }, () => Promise.resolve()))

  /** Lets the grace of everything end in `ms`. */
  async function endIn(ms: number): Promise<void> {
    await database.db.transaction(tx =>
      tx.query(
        `update manifest set lease_until = clock_timestamp() + $1 * interval '1 millisecond' where repository_id in
           (select id from repository where name = $2)`,
        [ms, REPOSITORY],
      ),
    )
  }

  const seed = Number(process.env['BERTH_TEST_SEED'] ?? randomInt(2 ** 31))
  test(`brings all of it back for good or nothing (seed ${seed})`, async () => {
    const random = seeded(seed)
    let returned = 0
    for (let round = 0; round < ROUNDS; round += 1) {
      const layer = await pushBlob(rules.registry, REPOSITORY)
      const child = await pushImage(rules.registry, REPOSITORY, undefined, { layers: [layer] })
      const index = await pushIndex(rules.registry, REPOSITORY, 'v1', [child])
      const signature = await pushImage(rules.registry, REPOSITORY, undefined, { subject: index })
      for (const digest of [index, child, signature]) {
        await rules.registry.deleteManifest(name, parseReference(digest), PUSHER)
      }
      await endIn(round === 0 ? HOUR_MS : random.between(-2, 25))
      const undelete = async (): Promise<boolean> => {
        try {
          await rules.registry.undeleteManifest(name, index, ADMIN)
          return true
        } catch (error) {
          assert.ok(error instanceof RegistryError && error.code === 'NOT_FOUND', String(error))
          return false
        }
      }
      const [isBack] = await Promise.all([undelete(), collect(), collect()])
      if (isBack) returned += 1
      for (let time = 0; time < 2; time += 1) {
        await letTimePass(database.db)
        await collect()
      }
      const found = await Promise.all([index, child, signature].map(isPulled))
      assert.deepEqual(found, Array(3).fill(isBack), `round ${round}`)
      const bytes = rules.registry.statBlob(name, layer, { mayPush: false })
      if (isBack) await bytes
      else await assert.rejects(bytes)
      if (isBack) await rules.registry.deleteManifest(name, parseReference(index), PUSHER)
    }
    assert.ok(returned >= 1)
  })
})
