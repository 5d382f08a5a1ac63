import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { type TestServer, createDatabase, startServer } from '../support/server.ts'
import { Ledger, Random } from './model.ts'
import { Pusher } from './pusher.ts'
import { type Seen, verify, verifyFiles } from './verify.ts'

/** `BERTH_TEST_KILLS` and `BERTH_TEST_SEED` make it longer, or the same as before. */
const KILLS = Number(process.env['BERTH_TEST_KILLS'] ?? 12)
const SEED = Number(process.env['BERTH_TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 32))
const PUSHERS = 4
const MOST_DELAY_MS = 40
const INDEX = process.env['BERTH_TEST_POSTGRES'] ? 'Postgres' : 'embedded index'

/** Runs pushers against a server until one of their requests, chosen at random, is its last. */
async function pushUntilKilled(server: TestServer, random: Random, ledger: Ledger): Promise<void> {
  const lastRequest = random.between(3, 60)
  const delayMs = random.between(0, MOST_DELAY_MS)
  const died = once(server.process, 'close')
  let requests = 0
  const onRequest = (): void => {
    requests += 1
    // Somewhere inside of that request or of one that runs beside it.
    if (requests === lastRequest) setTimeout(() => server.kill(), delayMs)
  }
  const pushers = Array.from({ length: PUSHERS }, (_, id) => {
    return new Pusher({ id, url: server.url, random: new Random(random.between(0, 2 ** 31)), ledger, onRequest })
  })
  try {
    await Promise.all(pushers.map(pusher => pusher.run()))
  } finally {
    server.kill()
    await died
  }
}

void test(`${KILLS} times SIGKILL in the middle of pushes loses nothing and shows nothing half (${INDEX})`, async t => {
  t.diagnostic(`seed ${SEED}: repeat with BERTH_TEST_SEED=${SEED}`)
  const random = new Random(SEED)
  const ledger = new Ledger()
  const seen: Seen = new Set()
  const total = { blobs: 0, manifests: 0, tags: 0 }
  const dataDir = await mkdtemp(join(tmpdir(), 'berth-crash-'))
  const database = await createDatabase()
  const start = (): Promise<TestServer> =>
    startServer({ dataDir, env: { BERTH_LOG_LEVEL: 'info' }, ...(database && { databaseUrl: database.url }) })
  const check = async (url: string): Promise<void> => {
    const round = await verify(url, ledger, seen)
    for (const kind of ['blobs', 'manifests', 'tags'] as const) total[kind] += round[kind]
  }
  let running: TestServer | undefined
  try {
    for (let kill = 1; kill <= KILLS; kill++) {
      running = await start()
      await check(running.url)
      await pushUntilKilled(running, random, ledger)
    }
    running = await start()
    const { url } = running
    await check(url)
    const finishers = Array.from(ledger.interrupted, (_, id) => {
      return new Pusher({ id, url, random: new Random(id), ledger, onRequest: () => undefined })
    })
    await Promise.all(finishers.map(finisher => finisher.resumeOne()))
    assert.deepEqual(ledger.interrupted, [])
    // Once more all of it, also what was verified after earlier kills.
    seen.clear()
    await check(url)
    await running.stop()
    const files = await verifyFiles(dataDir, ledger)
    t.diagnostic(
      `${KILLS} kills (${ledger.cutRequests} requests cut off, ${ledger.resumed} uploads resumed, ${ledger.mounted} mounts, ` +
        `${ledger.deleted} deletes), ${ledger.blobs.size} acknowledged blobs and ${ledger.manifests.size} manifests verified ` +
        `(${total.blobs}, ${total.manifests} and ${total.tags} tags over all rounds), ${files} files on the disk`,
    )
    assert.ok(ledger.cutRequests >= KILLS, 'too few kills hit a request')
    assert.ok(ledger.resumed > 0, 'no upload was resumed')
    assert.ok(ledger.blobs.size >= KILLS && ledger.manifests.size > 0, 'too little was acknowledged')
  } finally {
    running?.kill()
    await database?.drop()
    await rm(dataDir, { recursive: true, force: true })
  }
})
