import { setTimeout as delay } from 'node:timers/promises'
import { purgeTrash } from '../../src/gc/purge.ts'
import { DatabaseUnavailable } from '../../src/metadata/database.ts'
import { RegistryError } from '../../src/oci/errors.ts'
import { type Random, seeded } from '../support/random.ts'
import { PUSHER } from '../support/registry.ts'
import { pull } from './model-pull.ts'
import { TooLate, moveTag, pushImage, pushIndex, pushReferrer, uploadSlowly } from './model-push.ts'
import {
  COUNTED,
  type Counts,
  GRACE_MS,
  type ModelOptions,
  type ModelResult,
  REPOSITORIES,
  type Scene,
  TAG_NAMES,
} from './model-world.ts'

const OUTAGE_PAUSE_MS = 100

/** Runs pushers, deleters, pullers and collectors until `signal` fires. */
export async function runModel(options: ModelOptions): Promise<ModelResult> {
  const counts = Object.fromEntries(COUNTED.map(name => [name, 0])) as Counts
  const result: ModelResult = { ...counts, violations: [] }
  const scene: Scene = { ...options, result, referrers: [] }
  const actors: Promise<void>[] = []
  const start = (count: number, turns: readonly Turn[]): void => {
    for (let index = 0; index < count; index++) {
      const random = seeded(options.seed * 1_000 + actors.length)
      actors.push(act(scene, () => random.pick(turns)(scene, random)))
    }
  }
  start(options.pushers, [pushImage, pushImage, pushIndex, pushReferrer, moveTag, uploadSlowly])
  start(options.deleters, [remove])
  start(options.pullers, [pull])
  start(options.collectors, [collect])
  await Promise.all(actors)
  return result
}

type Turn = (scene: Scene, random: Random) => Promise<void>

async function act({ signal, outages, result }: Scene, turn: () => Promise<void>): Promise<void> {
  while (!signal.aborted) {
    try {
      await turn()
    } catch (error) {
      if (error instanceof TooLate) result.late += 1
      else if (outages && isOutage(error)) {
        result.outages += 1
        await delay(OUTAGE_PAUSE_MS)
      } else result.violations.push(`an unexpected error: ${error instanceof Error ? error.stack : String(error)}`)
    }
  }
}

function isOutage(error: unknown): boolean {
  return error instanceof DatabaseUnavailable || (error instanceof RegistryError && error.code === 'UNAVAILABLE')
}

async function remove({ registry, result }: Scene, random: Random): Promise<void> {
  await delay(random.between(20, 80))
  const name = random.pick(REPOSITORIES)
  const tag = random.pick(TAG_NAMES)
  try {
    const target = await registry.statManifest(name, { tag }, { mayPush: false })
    await registry.deleteManifest(name, random.between(0, 1) === 0 ? { tag } : { digest: target.digest }, PUSHER)
    result.deletes += 1
  } catch (error) {
    if (!(error instanceof RegistryError)) throw error
  }
}

async function collect({ db, store, sweep, times, result, onProgress }: Scene, random: Random): Promise<void> {
  await delay(random.between(0, 30))
  const swept = await sweep(db, { batch: random.between(1, 50), leaseMs: times.leaseMs, trashGraceMs: GRACE_MS })
  result.collected += swept.blobs
  const { violations, ...counts } = result
  onProgress({ ...counts, faults: violations.length })
  await purgeTrash(db, store)
}
