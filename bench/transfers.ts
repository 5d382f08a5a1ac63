// Large and many transfers against their bounds, on both indexes: transfers.ts [--json FILE]
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { Content, pullBlob, pushBlob } from './client.ts'
import { warmMemory } from './blob-figures.ts'
import { forgetPeak, peakBytes, residentBytes } from './process.ts'
import { type Contender, type Server, berths } from './servers.ts'
import { median } from './table.ts'

const GIGABYTE = 1_000_000_000
const LARGE_BYTES = 4 * GIGABYTE
const SMALL_BYTES = 10_000_000
const SMALL_COUNT = 64
/** How much more memory than an idle process one may have resident, whatever is transferred. */
const MEMORY_LIMIT_BYTES = 120_000_000
/** From the last byte of a 4 GB upload to its 201. */
const FINISH_LIMIT_MS = 100
const FINISHES = 3

/** One bound and what was seen. */
interface Check {
  readonly index: string
  readonly what: string
  readonly seen: number
  readonly limit: number
  readonly unit: string
}

const { values: options } = parseArgs({ options: { json: { type: 'string' } } })
const checks: Check[] = []
for (const contender of berths()) checks.push(...(await transfersOf(contender)))
for (const check of checks) {
  const verdict = check.seen <= check.limit ? 'ok' : 'OVER'
  console.log(`${verdict}  ${check.index}: ${check.what}: ${check.seen.toFixed(0)} ${check.unit} of ${check.limit}`)
}
if (options.json !== undefined) writeFileSync(options.json, JSON.stringify(checks, undefined, 2))
if (checks.length === 0 || checks.some(check => check.seen > check.limit)) process.exitCode = 1

async function transfersOf(contender: Contender): Promise<Check[]> {
  const directory = mkdtempSync(join(process.env['BERTH_BENCH_DIR'] ?? tmpdir(), 'berth-transfers-'))
  const server = await contender.start(directory)
  try {
    const large = new Content(LARGE_BYTES)
    const finishes: number[] = []
    // What a process holds after its first work is its idle state: code, caches and the allocator's reserve.
    await pushBlob(server, 'soak/warm', new Content(SMALL_BYTES), 'streamed')
    await warmMemory(server, LARGE_BYTES / 4)
    const idle = residentBytes(server.pid)
    const upload = await memoryOver(server, idle, async () => {
      finishes.push(await pushBlob(server, 'soak/large', large, 'streamed'))
    })
    const download = await memoryOver(server, idle, () => pullBlob(server, 'soak/large', large, true))
    const contents = Array.from({ length: SMALL_COUNT }, () => new Content(SMALL_BYTES))
    const parallel = await memoryOver(server, idle, async () => {
      await Promise.all(contents.map(content => pushBlob(server, 'soak/small', content, 'monolithic')))
    })
    while (finishes.length < FINISHES) {
      finishes.push(await pushBlob(server, 'soak/large', new Content(LARGE_BYTES), 'streamed'))
    }
    const memory = (what: string, bytes: number): Check => ({
      index: server.name,
      what: `${what}, memory over idle (${(idle / 1e6).toFixed(0)} MB)`,
      seen: bytes / 1e6,
      limit: MEMORY_LIMIT_BYTES / 1e6,
      unit: 'MB',
    })
    return [
      memory('upload of 4 GB', upload),
      memory('download of 4 GB', download),
      memory('64 uploads of 10 MB at once', parallel),
      {
        index: server.name,
        what: `last byte of 4 GB to 201, median of ${FINISHES}`,
        seen: median(finishes),
        limit: FINISH_LIMIT_MS,
        unit: 'ms',
      },
    ]
  } finally {
    await server.stop()
    rmSync(directory, { recursive: true, force: true })
  }
}

/** The most memory that was resident during `work`, less what was resident in the idle process. */
async function memoryOver(server: Server, idle: number, work: () => Promise<void>): Promise<number> {
  forgetPeak(server.pid)
  await work()
  return Math.max(0, peakBytes(server.pid) - idle)
}
