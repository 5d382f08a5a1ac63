// What a registry of a million tags costs against one of a thousand, and collection against pushes:
// lifecycle.ts [--json FILE] [--tags N] [--repositories N] [--dead N] [--requests N]
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { sweepBlobs, sweepLinks, sweepManifests } from '../src/gc/sweep.ts'
import { findLocalSockets } from '../src/local-socket.ts'
import { openPostgres } from '../src/metadata/postgres.ts'
import { Content, expect, forEach, manifestOf, pushBlob, pushManifest } from './client.ts'
import { type Size, TAGGED, addDead, addPopular, addUntagged, fill, repositoryName, tagName } from './lifecycle-fill.ts'
import { type Server, berths } from './servers.ts'
import { median } from './table.ts'

/** What a figure may be at the most: of a large registry by a small one, or in milliseconds. */
const LIMITS = { ratio: 3, deletionMs: 250, p99: 1.5 }
const SMALL: Size = { repositories: 1_000, tags: 1_000 }
const POPULAR_TAGS = 20_000
const SWEEP = { batch: 200, leaseMs: 86_400_000, trashGraceMs: 86_400_000 }
const PUSHERS = 4
const DELETIONS = 3
const SWEEPS = 10
const WARM_UP = 5
const BASELINE_MS = 30_000

const { values: options } = parseArgs({
  options: {
    json: { type: 'string' },
    tags: { type: 'string', default: '1000000' },
    repositories: { type: 'string', default: '100000' },
    dead: { type: 'string', default: '100000' },
    requests: { type: 'string', default: '300' },
  },
})
const large: Size = { repositories: Number(options.repositories), tags: Number(options.tags) }

/** One thing that was measured, with its bound. */
interface Figure {
  readonly name: string
  readonly text: string
  readonly value: number
  readonly limit: number
}

const directory = mkdtempSync(join(process.env['BERTH_BENCH_DIR'] ?? tmpdir(), 'berth-lifecycle-'))
const servers: Server[] = []
try {
  const start = async (size: Size): Promise<Filled> => {
    const contender = berths({ BERTH_REGISTRY_TRASH_GRACE: '1ms', BERTH_REGISTRY_ALLOW_SHORT_GRACE: 'true' }).at(-1)
    const server = await contender?.start(mkdtempSync(join(directory, 'server-')))
    if (server?.databaseUrl === undefined) throw new Error('this needs Postgres: npm run bench:lifecycle')
    servers.push(server)
    await fill(server.databaseUrl, size)
    return { server, size, url: server.databaseUrl }
  }
  const small = await start(SMALL)
  const filled = await start(large)
  const figures = [
    ...(await compareRequests(small, filled)),
    await compareSweeps(small, filled),
    await measureDeletion(filled),
    await measurePushes(filled),
  ]
  for (const { name, text, value, limit } of figures) {
    console.log(`${value <= limit ? 'ok  ' : 'OVER'}  ${name}: ${text} (at most ${limit})`)
  }
  if (options.json !== undefined) writeFileSync(options.json, JSON.stringify(figures, undefined, 2))
  if (figures.some(({ value, limit }) => !(value <= limit))) process.exitCode = 1
} finally {
  for (const server of servers) await server.stop()
  rmSync(directory, { recursive: true, force: true })
}

interface Filled {
  readonly server: Server
  readonly size: Size
  readonly url: string
}

/** A number from 1 to `count`. */
function below(count: number): number {
  return 1 + Math.floor(Math.random() * count)
}

/** The same requests to both in turns, so that whatever drifts hits them alike. */
async function compareRequests(small: Filled, filled: Filled): Promise<Figure[]> {
  const blob = new Content(1_000)
  for (const { server } of [small, filled]) await pushBlob(server, TAGGED, blob, 'monolithic')
  const get = async ({ server }: Filled, path: string): Promise<void> => void (await expect(200, server, 'GET', path))
  const works: Readonly<Record<string, (registry: Filled) => Promise<void>>> = {
    'tags page': registry =>
      get(registry, `/v2/${TAGGED}/tags/list?n=100&last=${tagName(below(registry.size.tags - 100))}`),
    'catalog page': registry =>
      get(registry, `/v2/_catalog?n=100&last=${repositoryName(below(registry.size.repositories - 100))}`),
    'manifest GET by tag': registry => get(registry, `/v2/${TAGGED}/manifests/${tagName(below(registry.size.tags))}`),
    'manifest push to a new tag': ({ server }) => {
      const note = String(Math.random())
      return pushManifest(server, TAGGED, `n${note}`, manifestOf(blob, note))
    },
  }
  const figures: Figure[] = []
  for (const [name, work] of Object.entries(works)) {
    const times = await inTurns(small, filled, Number(options.requests), async registry => {
      const began = performance.now()
      await work(registry)
      return performance.now() - began
    })
    figures.push(ratioFigure(name, times))
  }
  return figures
}

interface Times {
  readonly small: number
  readonly large: number
}

/** Median of the milliseconds that `work` answers, run `count` times on each after a few to get warm. */
async function inTurns(
  small: Filled,
  filled: Filled,
  count: number,
  work: (registry: Filled) => Promise<number | undefined>,
): Promise<Times> {
  const taken = new Map<Filled, number[]>([
    [small, []],
    [filled, []],
  ])
  for (let round = 0; round < count + WARM_UP; round++) {
    for (const registry of round % 2 === 0 ? [small, filled] : [filled, small]) {
      const took = await work(registry)
      if (round >= WARM_UP && took !== undefined) taken.get(registry)?.push(took)
    }
  }
  return { small: median(taken.get(small) ?? []), large: median(taken.get(filled) ?? []) }
}

function ratioFigure(name: string, { small, large: big }: Times): Figure {
  const text = `${small.toFixed(2)} ms at 1,000, ${big.toFixed(2)} ms: ${(big / small).toFixed(2)} times`
  return { name, text, value: big / small, limit: LIMITS.ratio }
}

/** One batch of each kind, full. */
async function compareSweeps(small: Filled, filled: Filled): Promise<Figure> {
  const databases = new Map([
    [small, await openPostgres({ url: small.url })],
    [filled, await openPostgres({ url: filled.url })],
  ])
  let round = 0
  try {
    const times = await inTurns(small, filled, SWEEPS, async registry => {
      const db = databases.get(registry)
      if (db === undefined) throw new Error('there is no such registry')
      round += 1
      await addDead(registry.url, SWEEP.batch, `dead${round}`)
      await addUntagged(registry.url, SWEEP.batch, `untagged${round}`)
      const began = performance.now()
      const found = [await sweepManifests(db, SWEEP), await sweepLinks(db, SWEEP), await sweepBlobs(db, SWEEP)]
      const took = performance.now() - began
      // The server's own collector may have been faster; then there is nothing to measure.
      const isFull = found.every(({ looked }) => looked === SWEEP.batch)
      return isFull ? took : undefined
    })
    return ratioFigure(`collection step of ${SWEEP.batch} manifests, links and blobs`, times)
  } finally {
    for (const db of databases.values()) await db.close()
  }
}

async function measureDeletion({ server, url }: Filled): Promise<Figure> {
  const times: number[] = []
  for (let round = 0; round < DELETIONS; round++) {
    const digest = await addPopular(url, POPULAR_TAGS, `popular${round}`)
    const began = performance.now()
    await expect(202, server, 'DELETE', `/v2/${TAGGED}/manifests/${digest}`)
    times.push(performance.now() - began)
  }
  const value = median(times)
  const name = `deleting a manifest that ${POPULAR_TAGS} tags point to`
  return { name, text: `${value.toFixed(0)} ms`, value, limit: LIMITS.deletionMs }
}

/** The p99 of whole pushes of small images, without a collection, during one, and without one again. */
async function measurePushes({ server, url }: Filled): Promise<Figure> {
  const forAWhile = (): Promise<number[]> => pushUntil(server, delay(BASELINE_MS))
  await pushUntil(server, delay(BASELINE_MS / 6))
  const before = await forAWhile()
  await addDead(url, Number(options.dead), 'many')
  const began = performance.now()
  const during = await pushUntil(server, collect(server))
  const seconds = (performance.now() - began) / 1000
  const without = p99([...before, ...(await forAWhile())])
  const value = p99(during) / without
  const text = `${without.toFixed(1)} ms without, ${p99(during).toFixed(1)} ms during ${seconds.toFixed(0)} s: ${value.toFixed(2)} times`
  return { name: `p99 of pushes while ${options.dead} blobs are collected`, text, value, limit: LIMITS.p99 }
}

async function pushUntil(server: Server, end: Promise<unknown>): Promise<number[]> {
  let isOver = false
  const ended = end.finally(() => (isOver = true))
  const times: number[] = []
  await forEach(PUSHERS, PUSHERS, async pusher => {
    while (!isOver) {
      const blob = new Content(10_000)
      const began = performance.now()
      await pushBlob(server, `push/p${pusher}`, blob, 'monolithic')
      await pushManifest(server, `push/p${pusher}`, 'latest', manifestOf(blob, ''))
      times.push(performance.now() - began)
    }
  })
  await ended
  return times
}

function p99(times: readonly number[]): number {
  const sorted = times.toSorted((a, b) => a - b)
  return sorted[Math.floor(sorted.length * 0.99)] ?? Number.NaN
}

/** Asks the server for a collection by its socket, and waits for its end. */
async function collect(server: Server): Promise<void> {
  const { run } = (await bySocket(server, 'POST', '/collection/runs')) as { run: number }
  for (;;) {
    await delay(500)
    const status = (await bySocket(server, 'GET', '/collection')) as { run: { run: number; state: string } }
    if (status.run.run === run && status.run.state === 'finished') return
  }
}

async function bySocket(server: Server, method: string, path: string): Promise<unknown> {
  const { promise, resolve, reject } = Promise.withResolvers<unknown>()
  const [socketPath] = await findLocalSockets(server.dataDir)
  if (socketPath === undefined) throw new Error(`no server listens below ${server.dataDir}`)
  const headers = { 'Content-Type': 'application/json' }
  request({ socketPath, method, path: `/api/v1${path}`, headers }, response => {
    let text = ''
    response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
    response.on('end', () => {
      if (response.statusCode === 200 || response.statusCode === 201) resolve(JSON.parse(text))
      else reject(new Error(`${method} ${path}: ${response.statusCode} ${text}`))
    })
  })
    .on('error', reject)
    .end()
  return await promise
}
