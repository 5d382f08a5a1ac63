import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import type { Database } from '../../src/metadata/database.ts'
import { openPostgres } from '../../src/metadata/postgres.ts'
import { migrate } from '../../src/metadata/migrate.ts'
import { createRegistry } from '../../src/registry/registry.ts'
import { Stores } from '../../src/storage/stores.ts'
import { createDatabase } from '../support/server.ts'
import { pullFault } from './model-pull.ts'
import { COUNTED, type Counts, type ModelResult, type Progress, everyTag } from './model-world.ts'
import { type RacePlace, openPlace } from './race-place.ts'
import type { SweepName } from './sweeps.ts'

const PROCESSES = 2
const LOOK_MS = 200
const LEASE_MS = 1_000

/** What all processes of a race did, and what was found at its end. */
export interface RaceResult extends ModelResult {
  readonly deadlocks: number
  readonly restarts: number
}

/** What kind of race. */
export interface RaceOptions {
  readonly sweep: SweepName
  /** Ends when at least so much was done. */
  readonly until: Partial<Counts>
  readonly limitMs: number
  /** Crashes Postgres, which then recovers and starts again, when half of the blobs were collected. */
  readonly restart: boolean
  /** What leases and retention are cut to; pushes must be faster than half of it. */
  readonly leaseMs: number
}

/** Races in a directory of its own: see {@link raceIn}. */
export async function race(options: Omit<RaceOptions, 'leaseMs'>): Promise<RaceResult> {
  const directory = await mkdtemp(join(tmpdir(), 'berth-test-race-'))
  try {
    return await raceIn({ directory }, { ...options, leaseMs: LEASE_MS })
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

/**
 * Races two processes of the model on one Postgres and one directory or bucket until enough blobs were collected (or
 * `limitMs` have passed, or something went wrong), then reads every tagged image. Prints its seed.
 */
export async function raceIn(place: RacePlace, options: RaceOptions): Promise<RaceResult> {
  const { sweep, until, limitMs, restart, leaseMs } = options
  const seed = Number(process.env['BERTH_TEST_SEED'] ?? Date.now() % 1_000_000)
  console.log(`race: seed ${seed} (BERTH_TEST_SEED), sweep ${sweep}`)
  const database = await createDatabase()
  if (database === undefined) throw new Error('the race needs Postgres: run it by scripts/with-postgres.ts')
  const db = await openPostgres({ url: database.url })
  try {
    await migrate(db)
    const store = await openPlace(place)
    const children = Array.from({ length: PROCESSES }, (_, index) =>
      start([
        database.url,
        JSON.stringify(place),
        sweep,
        String(seed + index),
        String(leaseMs),
        restart ? 'outages' : '',
      ]),
    )
    const end = performance.now() + limitMs
    let deadlocks = 0
    let restarts = 0
    while (performance.now() < end && children.every(({ child }) => child.exitCode === null)) {
      await delay(LOOK_MS)
      const progress = children.map(({ last }) => last())
      const done = progress.reduce(addCounts)
      if (isReached(done, until) || progress.some(({ faults }) => faults > 0)) break
      if (restart && restarts === 0 && done.collected >= (until.collected ?? 0) / 2) {
        // What the statistics say of deadlocks ends with the crash.
        deadlocks += await countDeadlocks(db)
        await crash(db)
        restarts += 1
      }
    }
    const results = await Promise.all(children.map(stop))
    const registry = createRegistry({
      db,
      stores: new Stores({ store }),
      lifetimes: { leaseMs: 1, untaggedRetentionMs: 1, deleteGraceMs: 1, uploadExpiryMs: 1, trashGraceMs: 1 },
      requireBlobs: true,
      requireChildren: true,
      allowChildDelete: false,
    })
    const faults: string[] = []
    for (const { name, tag } of everyTag()) {
      const fault = await pullFault({ registry, store }, name, tag)
      if (fault !== undefined) faults.push(`at the end: ${fault}`)
    }
    await store.close()
    return {
      ...results.reduce(add),
      violations: [...results.flatMap(r => r.violations), ...faults],
      deadlocks: deadlocks + (await countDeadlocks(db)),
      restarts,
    }
  } finally {
    await db.close()
    await database.drop()
  }
}

async function countDeadlocks(db: Database): Promise<number> {
  const [stats] = await db.query<{ deadlocks: number }>(
    'select deadlocks::bigint as deadlocks from pg_stat_database where datname = current_database()',
  )
  return stats?.deadlocks ?? Number.NaN
}

/** Kills one server process of Postgres, whereupon it ends all of them, recovers from its log, and starts again. */
async function crash(db: Database): Promise<void> {
  const [backend] = await db.query<{ pid: number }>('select pg_backend_pid() as pid')
  if (backend === undefined) throw new Error('Postgres did not say who it is')
  process.kill(backend.pid, 'SIGKILL')
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
  let last = JSON.stringify({ ...Object.fromEntries(COUNTED.map(name => [name, 0])), faults: 0 })
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
  return { ...addCounts(a, b), violations: [...a.violations, ...b.violations] }
}

function addCounts<C extends Counts>(a: C, b: C): C {
  return { ...a, ...Object.fromEntries(COUNTED.map(name => [name, a[name] + b[name]])) }
}

function isReached(done: Counts, until: Partial<Counts>): boolean {
  const wanted = COUNTED.filter(name => until[name] !== undefined)
  return wanted.length > 0 && wanted.every(name => done[name] >= (until[name] ?? 0))
}
