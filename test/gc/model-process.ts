// One process of the race model: model-process.ts DATABASE_URL PLACE SWEEP SEED LEASE_MS. Prints a line
// of progress after each sweep, and its whole result when told to stop.
import { openPostgres } from '../../src/metadata/postgres.ts'
import { createRegistry } from '../../src/registry/registry.ts'
import { Stores } from '../../src/storage/stores.ts'
import { runModel } from './model.ts'
import { type RacePlace, openPlace } from './race-place.ts'
import { SWEEPS, type SweepName } from './sweeps.ts'

const [url = '', place = '', sweep = '', seed = '', lease = ''] = process.argv.slice(2)
const leaseMs = Number(lease)
const stop = new AbortController()
process.once('SIGTERM', () => stop.abort())
const db = await openPostgres({ url, poolSize: 30 })
const store = await openPlace(JSON.parse(place) as RacePlace)
const registry = createRegistry({
  db,
  stores: new Stores({ store }),
  lifetimes: {
    leaseMs,
    untaggedRetentionMs: leaseMs,
    deleteGraceMs: leaseMs,
    uploadExpiryMs: 60_000,
    trashGraceMs: leaseMs,
  },
  requireBlobs: true,
  requireChildren: false,
  allowChildDelete: false,
})
const result = await runModel({
  db,
  registry,
  store,
  sweep: SWEEPS[sweep as SweepName],
  leaseMs,
  seed: Number(seed),
  pushers: 12,
  deleters: 2,
  pullers: 2,
  collectors: 2,
  signal: stop.signal,
  onProgress: progress => process.stdout.write(`${JSON.stringify(progress)}\n`),
})
await store.close()
await db.close()
process.stdout.write(`${JSON.stringify(result)}\n`)
