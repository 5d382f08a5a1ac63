// Berth with its blobs in S3, against its bounds and beside Distribution: s3.ts [--quick] [--json FILE] [--rounds N]
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { type TestBucket, type TestS3, createBucket, testServers } from '../test/s3/support.ts'
import { Content, expect, pushBlob } from './client.ts'
import { blobGet, blobPushes } from './blob-figures.ts'
import { forgetPeak, peakBytes, residentBytes } from './process.ts'
import { machine, measureRounds } from './rounds.ts'
import { type Contender, type Server, berths, distributionOnS3 } from './servers.ts'
import { type Result, median, renderTable } from './table.ts'

const MEGABYTE = 1_000_000
/** What Berth takes for uploads by default, and how much more may be resident. */
const BUDGET_BYTES = 256 * 2 ** 20
const MORE_BYTES = 250 * MEGABYTE
const PARALLEL = 64
/** Content of one part and less, and the smallest that is worth to be called several parts. */
const ONE_PART = 4 * MEGABYTE
const FEW_PARTS = 40 * MEGABYTE
const RATIO_LIMIT = 2
/** Servers that write the parts into one file when an upload is completed, which takes as long as there are bytes. */
const JOINED_BY_COPY = ['versitygw']
const FINISHES = 3

const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    json: { type: 'string' },
    rounds: { type: 'string' },
  },
})
const rounds = Number(options.rounds ?? (options.quick ? 1 : 3))
const manyParts = (options.quick ? 400 : 4000) * MEGABYTE
const parallelBytes = (options.quick ? 20 : 100) * MEGABYTE
const largeBytes = (options.quick ? 100 : 1000) * MEGABYTE
const directory = mkdtempSync(join(process.env['BERTH_BENCH_DIR'] ?? tmpdir(), 'berth-s3-bench-'))

/** One bound and what was seen; without a limit it is told and not judged. */
interface Check {
  readonly what: string
  readonly seen: number
  readonly limit: number | undefined
  readonly unit: string
}

const checks: Check[] = []
const results: Result[] = []
try {
  console.error(machine())
  for (const s3 of testServers()) {
    checks.push(...(await finishes(s3)), await memory(s3))
    results.push(...(await besideDistribution(s3)))
  }
} finally {
  rmSync(directory, { recursive: true, force: true })
}
for (const { what, seen, limit, unit } of checks) {
  const verdict = limit === undefined ? '--' : seen <= limit ? 'ok' : 'OVER'
  console.log(
    `${verdict}  ${what}: ${seen.toPrecision(3)} ${unit}${limit === undefined ? '' : ` of ${limit.toFixed(0)}`}`,
  )
}
console.log(renderTable(results))
if (options.json !== undefined) {
  writeFileSync(options.json, JSON.stringify({ machine: machine(), rounds, checks, results }, undefined, 2))
}
if (checks.some(({ seen, limit }) => limit !== undefined && !(seen <= limit))) process.exitCode = 1

/** Runs `work` with Berth on Postgres and a bucket of its own, which is emptied afterwards. */
async function withBerth<T>(s3: TestS3, work: (server: Server) => Promise<T>): Promise<T> {
  const bucket = await createBucket(s3)
  const server = await started(berthOn(bucket))
  try {
    return await work(server)
  } finally {
    await server.stop()
    await bucket.remove()
  }
}

function berthOn(bucket: TestBucket): Contender {
  const contender = berths(bucket.settings()).find(({ name }) => name === 'berth, postgres')
  if (contender === undefined) throw new Error('BERTH_TEST_POSTGRES is missing: run this by npm run bench:s3')
  return contender
}

async function started(contender: Contender): Promise<Server> {
  return await contender.start(mkdtempSync(join(directory, 'server-')))
}

/** What closing costs for content of very different sizes; the sizes take turns. */
async function finishes(s3: TestS3): Promise<Check[]> {
  return await withBerth(s3, async server => {
    const sizes = [ONE_PART, FEW_PARTS, manyParts]
    const seen = sizes.map(() => ({ put: [] as number[], wait: [] as number[] }))
    await finish(server, FEW_PARTS)
    for (let turn = 0; turn < (options.quick ? 1 : FINISHES); turn += 1) {
      for (const [index, size] of sizes.entries()) {
        const { putMs, waitMs } = await finish(server, size)
        seen[index]?.put.push(putMs)
        seen[index]?.wait.push(waitMs)
      }
    }
    const [one, few, many] = seen.map(({ put, wait }) => ({ put: median(put), wait: median(wait) }))
    const none = Number.NaN
    const told = (what: string, value: number | undefined, unit = 'ms'): Check => ({
      what: `${s3.name}: ${what}`,
      seen: value ?? none,
      limit: undefined,
      unit,
    })
    const name = (size: number): string => `${size / MEGABYTE} MB`
    const parts = `${name(manyParts)} by ${name(FEW_PARTS)}, both of several parts`
    const limit = JOINED_BY_COPY.includes(s3.name) ? undefined : RATIO_LIMIT
    return [
      told(`closing PUT of ${name(ONE_PART)}, which was one PutObject before it`, one?.put),
      told(`closing PUT of ${name(FEW_PARTS)}`, few?.put),
      told(`closing PUT of ${name(manyParts)}`, many?.put),
      told(`last byte of ${name(ONE_PART)} to 201`, one?.wait),
      told(`last byte of ${name(FEW_PARTS)} to 201`, few?.wait),
      told(`last byte of ${name(manyParts)} to 201`, many?.wait),
      { ...told(`closing PUT, ${parts}`, ratio(many?.put, few?.put), 'times'), limit },
      { ...told(`last byte to 201, ${parts}`, ratio(many?.wait, few?.wait), 'times'), limit },
      told(`closing PUT, ${name(manyParts)} by ${name(ONE_PART)}`, ratio(many?.put, one?.put), 'times'),
      told(`last byte to 201, ${name(manyParts)} by ${name(ONE_PART)}`, ratio(many?.wait, one?.wait), 'times'),
    ]
  })
}

function ratio(large = Number.NaN, small = Number.NaN): number {
  return large / small
}

/** Pushes as Docker does: one PATCH without a length, one empty PUT. Milliseconds of the PUT, and from last byte to 201. */
async function finish(server: Server, bytes: number): Promise<{ putMs: number; waitMs: number }> {
  const content = new Content(bytes)
  const begun = await expect(202, server, 'POST', '/v2/bench/finish/blobs/uploads/')
  const location = new URL(begun.headers.location ?? '', server.url)
  const patched = await expect(202, server, 'PATCH', location.href, { body: content, chunked: true })
  location.searchParams.set('digest', content.digest)
  const { waitedMs } = await expect(201, server, 'PUT', location.href, { body: Buffer.alloc(0) })
  return { putMs: waitedMs, waitMs: patched.waitedMs + waitedMs }
}

/** The most memory that is resident while many upload at once. */
async function memory(s3: TestS3): Promise<Check> {
  return await withBerth(s3, async server => {
    await pushBlob(server, 'bench/warm', new Content(FEW_PARTS), 'streamed')
    const idle = residentBytes(server.pid)
    const contents = Array.from({ length: PARALLEL }, () => new Content(parallelBytes))
    forgetPeak(server.pid)
    await Promise.all(contents.map(content => pushBlob(server, 'bench/parallel', content, 'monolithic')))
    return {
      what: `${s3.name}: ${PARALLEL} uploads of ${parallelBytes / MEGABYTE} MB at once, most resident (${(idle / MEGABYTE).toFixed(0)} MB before)`,
      seen: peakBytes(server.pid) / MEGABYTE,
      limit: (BUDGET_BYTES + MORE_BYTES) / MEGABYTE,
      unit: 'MB',
    }
  })
}

/** Pushes and pulls by one client, without redirects, in turns with Distribution on the same S3 server. */
async function besideDistribution(s3: TestS3): Promise<Result[]> {
  const buckets = [await createBucket(s3), await createBucket(s3)] as const
  const servers: Server[] = []
  try {
    servers.push(await started(berthOn(buckets[0])))
    for (const peer of distributionOnS3({ ...s3, bucket: buckets[1].bucket })) servers.push(await started(peer))
    if (servers.length === 1) console.error('Distribution is not installed; see bench/README.md')
    const figures = [...blobPushes(largeBytes, 'streamed'), blobGet('blob GET', new Content(largeBytes))]
    const measured: Result[] = []
    for (const figure of figures) {
      const result = await measureRounds(figure, servers, rounds)
      measured.push({ ...result, figure: `${s3.name}: ${result.figure}` })
    }
    return measured
  } finally {
    for (const server of servers) await server.stop()
    for (const bucket of buckets) await bucket.remove()
  }
}
