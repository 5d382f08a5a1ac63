import assert from 'node:assert/strict'
import { once } from 'node:events'
import type { TestContext } from 'node:test'
import type { TestServer } from '../support/server.ts'
import { Ledger, Random } from './model.ts'
import { Pusher } from './pusher.ts'
import { type Seen, verify } from './verify.ts'

/** `BERTH_TEST_KILLS` and `BERTH_TEST_SEED` make it longer, or the same as before. */
export const KILLS = Number(process.env['BERTH_TEST_KILLS'] ?? 12)
const SEED = Number(process.env['BERTH_TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 32))
const PUSHERS = 4
const MOST_DELAY_MS = 40

/** A registry that is killed again and again. */
export interface Place {
  /** How many processes it has at once; each is killed in its turn while the others go on. */
  readonly processes: number
  /** Starts one process of it. */
  start(): Promise<TestServer>
  /** Asserts that all that is stored is whole content that somebody sent; answers the number of blobs stored. */
  verifyStored(ledger: Ledger): Promise<number>
}

/**
 * Kills the processes of a registry `kills` times in the middle of pushes, each time starting them anew, and asserts that
 * nothing acknowledged was lost and nothing half can be seen.
 */
export async function killAgainAndAgain(t: TestContext, place: Place, kills: number): Promise<void> {
  t.diagnostic(`seed ${SEED}: repeat with BERTH_TEST_SEED=${SEED}`)
  const random = new Random(SEED)
  const ledger = new Ledger()
  const seen: Seen = new Set()
  const total = { blobs: 0, manifests: 0, tags: 0 }
  let running: TestServer[] = []
  const startAll = async (): Promise<string> => {
    running = await Promise.all(Array.from({ length: place.processes }, () => place.start()))
    return random.pick(running as [TestServer, ...TestServer[]]).url
  }
  const check = async (url: string): Promise<void> => {
    const round = await verify(url, ledger, seen)
    for (const kind of ['blobs', 'manifests', 'tags'] as const) total[kind] += round[kind]
  }
  try {
    for (let killed = 0; killed < kills; killed += place.processes) {
      await check(await startAll())
      await Promise.all(running.map((server, index) => pushUntilKilled(server, random, ledger, index * PUSHERS)))
      // Removes what they had for themselves.
      for (const server of running) await server.stop()
    }
    const url = await startAll()
    await check(url)
    const finishers = Array.from(ledger.interrupted, (_, id) => {
      return new Pusher({ id, url, random: new Random(id), ledger, onRequest: () => undefined })
    })
    await Promise.all(finishers.map(finisher => finisher.resumeOne()))
    assert.deepEqual(ledger.interrupted, [])
    // Once more all of it, also what was verified after earlier kills.
    seen.clear()
    await check(url)
    for (const server of running) await server.stop()
    const stored = await place.verifyStored(ledger)
    t.diagnostic(
      `${kills} kills (${ledger.cutRequests} requests cut off, ${ledger.resumed} uploads resumed, ${ledger.mounted} mounts, ` +
        `${ledger.deleted} deletes), ${ledger.blobs.size} acknowledged blobs and ${ledger.manifests.size} manifests verified ` +
        `(${total.blobs}, ${total.manifests} and ${total.tags} tags over all rounds), ${stored} blobs stored`,
    )
    assert.ok(ledger.cutRequests >= kills, 'too few kills hit a request')
    assert.ok(ledger.resumed > 0, 'no upload was resumed')
    assert.ok(ledger.blobs.size >= kills && ledger.manifests.size > 0, 'too little was acknowledged')
  } finally {
    for (const server of running) server.kill()
  }
}

/** Runs pushers against a server until one of their requests, chosen at random, is its last. */
async function pushUntilKilled(server: TestServer, random: Random, ledger: Ledger, firstId: number): Promise<void> {
  const lastRequest = random.between(3, 60)
  const delayMs = random.between(0, MOST_DELAY_MS)
  const died = once(server.process, 'close')
  let requests = 0
  const onRequest = (): void => {
    requests += 1
    // Somewhere inside of that request or of one that runs beside it.
    if (requests === lastRequest) setTimeout(() => server.kill(), delayMs)
  }
  const pushers = Array.from({ length: PUSHERS }, (_, index) => {
    const own = new Random(random.between(0, 2 ** 31))
    return new Pusher({ id: firstId + index, url: server.url, random: own, ledger, onRequest })
  })
  try {
    await Promise.all(pushers.map(pusher => pusher.run()))
  } finally {
    server.kill()
    await died
  }
}
