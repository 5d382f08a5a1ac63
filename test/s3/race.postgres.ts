import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { raceIn } from '../gc/race.ts'
import { type Cluster, startCluster } from '../support/cluster.ts'
import { describeRaces } from '../support/races.ts'
import { type TestBucket, createBucket, testServers } from './support.ts'

const BLOBS = Number(process.env['BERTH_TEST_RACE_BLOBS'] ?? 200)
/** A push takes longer here than to a directory. */
const LEASE_MS = 3_000
const LIMIT_MS = Number(process.env['BERTH_TEST_RACE_LIMIT_MS'] ?? 120_000)

for (const s3 of testServers()) {
  void describe(`Races between two processes on Postgres and ${s3.name}`, { timeout: 300_000 }, () => {
    let bucket: TestBucket
    let cluster: Cluster
    before(async () => {
      bucket = await createBucket(s3)
      cluster = await startCluster(bucket.settings())
    })
    after(async () => {
      await cluster?.stop()
      await bucket?.remove()
    })

    describeRaces(() => cluster.proxy.url)
  })

  void test(`Collection and pushes race in two processes on Postgres and ${s3.name}: no image breaks, no promise is broken`, async t => {
    const bucket = await createBucket(s3)
    t.after(() => bucket.remove())
    const result = await raceIn(
      { s3: bucket.options },
      { sweep: 'real', until: { collected: BLOBS }, limitMs: LIMIT_MS, restart: false, leaseMs: LEASE_MS },
    )
    t.diagnostic(JSON.stringify({ ...result, violations: result.violations.length }))
    assert.deepEqual(result.violations.slice(0, 5), [])
    assert.equal(result.deadlocks, 0)
    assert.ok(result.collected >= BLOBS, `only ${result.collected} blobs were collected in time`)
    assert.ok(result.pushes > 20 && result.skips > 20 && result.deletes > 0)
  })
}
