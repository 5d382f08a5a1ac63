import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { type Random, runSeed, seeded } from '../support/random.ts'
import { createDatabase } from '../support/server.ts'

const KILLS = Number(process.env['BERTH_TEST_KILLS'] ?? 6)
const SEED = runSeed()
const MOST_BATCHES = 25
const MOST_DELAY_MS = 15
const LIMIT_MS = 120_000
const INDEX = process.env['BERTH_TEST_POSTGRES'] ? 'Postgres' : 'embedded index'

interface Said {
  readonly checked?: number
  readonly blobs?: number
  readonly purged?: number
  readonly left?: readonly string[]
}

/** Runs a collector until it has said that many batches and a moment more, or, without a number, to its own end. */
async function runCollector(args: readonly string[], batches?: { count: number; delayMs: number }): Promise<Said[]> {
  const script = join(import.meta.dirname, 'collector.ts')
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', script, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: LIMIT_MS,
    killSignal: 'SIGKILL',
  })
  const said: Said[] = []
  let complaint = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (complaint += text))
  createInterface({ input: child.stdout }).on('line', line => {
    said.push(JSON.parse(line) as Said)
    if (said.length === (batches?.count ?? Number.NaN) + 1) setTimeout(() => child.kill('SIGKILL'), batches?.delayMs)
  })
  await once(child, 'close')
  // Only what found a fault ends by itself.
  if (batches === undefined) assert.equal(child.exitCode, 0, complaint)
  else assert.equal(child.signalCode, 'SIGKILL', complaint)
  assert.ok(said.length > 0 && said[0]?.checked !== undefined, `it was not even checked: ${complaint}`)
  return said
}

void test(`${KILLS} times SIGKILL in the middle of sweep and purge breaks no image and leaks no bytes (${INDEX})`, async t => {
  t.diagnostic(`seed ${SEED}: repeat with BERTH_TEST_SEED=${SEED}`)
  const random: Random = seeded(SEED)
  const dataDir = await mkdtemp(join(tmpdir(), 'berth-crash-collect-'))
  const database = await createDatabase()
  const args = (mode: string): string[] => [dataDir, database?.url ?? '', String(random.between(0, 2 ** 31)), mode]
  try {
    let collected = 0
    let purged = 0
    for (let kill = 0; kill < KILLS; kill++) {
      const batches = { count: random.between(1, MOST_BATCHES), delayMs: random.between(0, MOST_DELAY_MS) }
      const [, ...said] = await runCollector(args('work'), batches)
      collected += said.reduce((sum, batch) => sum + (batch.blobs ?? 0), 0)
      purged += said.reduce((sum, batch) => sum + (batch.purged ?? 0), 0)
    }
    const drained = await runCollector(args('drain'))
    t.diagnostic(`${KILLS} kills, ${collected} blobs collected and ${purged} keys deleted before them`)
    assert.deepEqual(drained.at(-1)?.left, [])
    assert.ok(collected > KILLS / 2 && purged > KILLS / 2, 'too little was collected between the kills')
  } finally {
    await database?.drop()
    await rm(dataDir, { recursive: true, force: true })
  }
})
