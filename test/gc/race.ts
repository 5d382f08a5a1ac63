import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { openPostgres } from '../../src/metadata/postgres.ts'
import { migrate } from '../../src/metadata/migrate.ts'
import { createRegistry } from '../../src/registry/registry.ts'
import { Stores } from '../../src/storage/stores.ts'
import { createDatabase } from '../support/server.ts'
import { type ModelResult, type Progress, everyTag, pullFault } from './model.ts'
import { type RacePlace, openPlace } from './race-place.ts'
import type { SweepName } from './sweeps.ts'

const PROCESSES = 2
const LOOK_MS = 200
const LEASE_MS = 600

/** What all processes of a race did, and what was found at its end. */
export interface RaceResult extends ModelResult {
  readonly deadlocks: number
}

/** How a race runs. */
export interface RaceOptions {
  readonly sweep: SweepName
  /** Blobs to be collected. */
  readonly blobs: number
  readonly limitMs: number
  /** What leases and retention are cut to; pushes must be faster than half of it. */
  readonly leaseMs: number
}

/** Races in a directory of its own: see {@link raceIn}. */
export async function race(sweep: SweepName, blobs: number, limitMs: number): Promise<RaceResult> {
  const directory = await mkdtemp(join(tmpdir(), 'berth-test-race-'))
  try {
    return await raceIn({ directory }, { sweep, blobs, limitMs, leaseMs: LEASE_MS })
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

/**
 * Races two processes of the model on one Postgres and one directory or bucket until `blobs` blobs were collected (or
 * `limitMs` have passed, or something went wrong), then reads every tagged image. Prints its seed.
 */
export async function raceIn(place: RacePlace, options: RaceOptions): Promise<RaceResult> {
  const { sweep, blobs, limitMs, leaseMs } = options
  const seed = Number(process.env['BERTH_TEST_SEED'] ?? Date.now() % 1_000_000)
  console.log(`race: seed ${seed} (BERTH_TEST_SEED), sweep ${sweep}`)
  const database = await createDatabase()
  if (database === undefined) throw new Error('the race needs Postgres: run it by scripts/with-postgres.ts')
  const db = await openPostgres({ url: database.url })
  try {
    await migrate(db)
    const store = await openPlace(place)
    const children = Array.from({ length: PROCESSES }, (_, index) =>
      start([database.url, JSON.stringify(place), sweep, String(seed + index), String(leaseMs)]),
    )
    const end = performance.now() + limitMs
    while (performance.now() < end && children.every(({ child }) => child.exitCode === null)) {
      await delay(LOOK_MS)
      const progress = children.map(({ last }) => last())
      const isDone = progress.reduce((sum, { collected }) => sum + collected, 0) >= blobs
      if (isDone || progress.some(({ violations }) => violations > 0)) break
    }
    const results = await Promise.all(children.map(stop))
    const registry = createRegistry({
      db,
      stores: new Stores({ store }),
      lifetimes: { leaseMs: 1, untaggedRetentionMs: 1, deleteGraceMs: 1, uploadExpiryMs: 1, trashGraceMs: 1 },
      requireBlobs: true,
      requireChildren: false,
      allowChildDelete: false,
    })
    const faults: string[] = []
    for (const { name, tag } of everyTag()) {
      const fault = await pullFault({ registry, store }, name, tag)
      if (fault !== undefined) faults.push(`at the end: ${fault}`)
    }
    await store.close()
    const [stats] = await db.query<{ deadlocks: number }>(
      'select deadlocks::bigint as deadlocks from pg_stat_database where datname = current_database()',
    )
    return {
      ...results.reduce(add),
      violations: [...results.flatMap(r => r.violations), ...faults],
      deadlocks: stats?.deadlocks ?? -1,
    }
  } finally {
    await db.close()
    await database.drop()
  }
}

interface Running {
  readonly child: ChildProcess
  /** What it has said of itself last. */
  readonly last: () => Progress
  readonly ended: Promise<unknown>
}

function start(args: readonly string[]): Running {
  const script = join(import.meta.dirname, 'model-process.ts')
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', script, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let last = '{"collected":0,"violations":0}'
  createInterface({ input: child.stdout }).on('line', line => (last = line))
  return { child, last: () => JSON.parse(last) as Progress, ended: once(child, 'close') }
}

async function stop({ child, last, ended }: Running): Promise<ModelResult> {
  child.kill('SIGTERM')
  await ended
  if (child.exitCode !== 0) throw new Error(`a process of the race ended with ${child.exitCode ?? child.signalCode}`)
  return last() as unknown as ModelResult
}

function add(a: ModelResult, b: ModelResult): ModelResult {
  return {
    pushes: a.pushes + b.pushes,
    late: a.late + b.late,
    mounts: a.mounts + b.mounts,
    skips: a.skips + b.skips,
    deletes: a.deletes + b.deletes,
    pulls: a.pulls + b.pulls,
    collected: a.collected + b.collected,
    violations: [...a.violations, ...b.violations],
  }
}
