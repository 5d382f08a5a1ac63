// One process of the race model: model-process.ts DATABASE_URL PLACE SWEEP SEED LEASE_MS OUTAGES. Prints a line of progress
// after each sweep, and its whole result when told to stop.
import { openPostgres } from '../../src/metadata/postgres.ts'
import { createRegistry } from '../../src/registry/registry.ts'
import { Stores } from '../../src/storage/stores.ts'
import { runModel } from './model.ts'
import { timesFor } from './model-world.ts'
import { type RacePlace, openPlace } from './race-place.ts'
import { SWEEPS, type SweepName } from './sweeps.ts'

const [url = '', place = '', sweep = '', seed = '', lease = '', outages = ''] = process.argv.slice(2)
const stop = new AbortController()
process.once('SIGTERM', () => stop.abort())
const db = await openPostgres({ url, poolSize: 30 })
const store = await openPlace(JSON.parse(place) as RacePlace)
const times = timesFor(Number(lease))
const lifetimes = {
  leaseMs: times.leaseMs,
  untaggedRetentionMs: times.leaseMs,
  deleteGraceMs: times.leaseMs,
  uploadExpiryMs: times.uploadExpiryMs,
  trashGraceMs: times.leaseMs,
}
const stores = new Stores({ store })
const rules = { db, stores, lifetimes, requireBlobs: true, requireChildren: true, allowChildDelete: false }
const result = await runModel({
  db,
  registry: createRegistry(rules),
  lax: createRegistry({ ...rules, requireBlobs: false, requireChildren: false }),
  store,
  sweep: SWEEPS[sweep as SweepName],
  times,
  seed: Number(seed),
  pushers: 12,
  deleters: 2,
  pullers: 2,
  collectors: 2,
  signal: stop.signal,
  onProgress: progress => process.stdout.write(`${JSON.stringify(progress)}\n`),
  outages: outages === 'outages',
})
await store.close()
await db.close()
process.stdout.write(`${JSON.stringify(result)}\n`)
