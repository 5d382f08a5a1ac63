// One process of the race model: model-process.ts DATABASE_URL DIRECTORY SWEEP SEED. Prints a line
// of progress after each sweep, and its whole result when told to stop.
import { openPostgres } from '../../src/metadata/postgres.ts'
import { createRegistry } from '../../src/registry/registry.ts'
import { openFilesystemStore } from '../../src/storage/filesystem.ts'
import { Stores } from '../../src/storage/stores.ts'
import { LEASE_MS, runModel } from './model.ts'
import { SWEEPS, type SweepName } from './sweeps.ts'

const [url = '', directory = '', sweep = '', seed = ''] = process.argv.slice(2)
const stop = new AbortController()
process.once('SIGTERM', () => stop.abort())
const db = await openPostgres({ url, poolSize: 30 })
const store = await openFilesystemStore({ directory, bufferBytes: 8 * 2 ** 20 })
const registry = createRegistry({
  db,
  stores: new Stores({ store }),
  lifetimes: {
    leaseMs: LEASE_MS,
    untaggedRetentionMs: LEASE_MS,
    deleteGraceMs: LEASE_MS,
    uploadExpiryMs: 60_000,
    trashGraceMs: LEASE_MS,
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
