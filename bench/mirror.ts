// What a mirror costs over its upstream, and a warm one over a repository of our own: mirror.ts [--quick] [--json FILE]
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { Content, expect, forEach, manifestOf, pullBlob, pushBlob, pushManifest } from './client.ts'
import { type Layer, type MirrorUpstream, epochMs, startMirrorUpstream } from './mirror-upstream.ts'
import { Neighbours, cpuSeconds } from './process.ts'
import { machine } from './rounds.ts'
import { type Server, berths } from './servers.ts'
import { median } from './table.ts'
import { load } from './wrk.ts'

const MB = 1e6
const RATE = 20 * MB
const CLIENTS = 100
const CONNECTIONS = 16
const HEAD_END = Buffer.from('\r\n\r\n')
/** Nobody looks at bytes that were counted. */
const BUFFER = new Uint8Array(256 * 1024)

const { values: options } = parseArgs({
  options: { quick: { type: 'boolean', default: false }, json: { type: 'string' } },
})
const SIZES = options.quick
  ? { layer: 40 * MB, firstBytes: 10, repositories: 20, blob: 100 * MB, blobs: 5, rounds: 2, seconds: 2 }
  : { layer: 200 * MB, firstBytes: 50, repositories: 100, blob: 1000 * MB, blobs: 5, rounds: 5, seconds: 5 }

/** One figure against its bound. */
interface Verdict {
  readonly figure: string
  readonly value: number
  readonly text: string
  readonly isMet: boolean
}

const directory = mkdtempSync(join(process.env['BERTH_BENCH_DIR'] ?? tmpdir(), 'berth-mirror-'))
const newDirectory = (): string => mkdtempSync(join(directory, 'server-'))
const verdicts: Verdict[] = []
try {
  const upstream = await startMirrorUpstream(RATE)
  try {
    for (const cold of berths(mirrorOf({ cold: upstream.url }))) {
      const server = await cold.start(newDirectory())
      try {
        verdicts.push(await firstByte(server, upstream), await manyAtOnce(server, upstream))
      } finally {
        await server.stop()
      }
    }
  } finally {
    await upstream.stop()
  }
  for (const [index, { name }] of berths().entries()) verdicts.push(...(await warm(name, index)))
  console.log(machine())
  for (const { isMet, figure, text } of verdicts) console.log(`${isMet ? 'ok  ' : 'OVER'}  ${figure}: ${text}`)
  if (options.json !== undefined) writeFileSync(options.json, JSON.stringify(verdicts, undefined, 2))
  if (verdicts.some(({ isMet }) => !isMet)) process.exitCode = 1
} finally {
  rmSync(directory, { recursive: true, force: true })
}

function mirrorOf(upstreams: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  const settings = Object.entries(upstreams).map(([prefix, url]) => [
    prefix,
    { url, allowPrivate: true, namespaces: [], tagTtl: '1h' },
  ])
  return { BERTH_MIRROR_UPSTREAMS: JSON.stringify(Object.fromEntries(settings)) }
}

/** How much later than the upstream sends it the first byte of a layer is at the client. */
async function firstByte(server: Server, upstream: MirrorUpstream): Promise<Verdict> {
  const lags: number[] = []
  for (let turn = 0; turn < SIZES.firstBytes; turn++) {
    const layer = await upstream.offer(MB)
    const { firstByteAt } = await download(server.url, `/v2/cold/a/blobs/${layer.digest}`, layer)
    lags.push(firstByteAt - (await upstream.sent(layer)).firstByteAt)
  }
  const value = median(lags)
  const text = `median ${value.toFixed(1)} ms, most ${Math.max(...lags).toFixed(1)} ms, of 20 ms`
  return { figure: `${server.name}, first byte after the upstream's`, value, text, isMet: value <= 20 }
}

/** How much longer than one direct download a hundred at once take. */
async function manyAtOnce(server: Server, upstream: MirrorUpstream): Promise<Verdict> {
  const direct = await upstream.offer(SIZES.layer)
  const directMs = await timed(() => download(upstream.url, `/v2/a/blobs/${direct.digest}`, direct))
  const layer = await upstream.offer(SIZES.layer)
  const path = `/v2/cold/a/blobs/${layer.digest}`
  const before = cpuSeconds(server.pids())
  const neighbours = new Neighbours(server.pids())
  const ms = await timed(() => Promise.all(Array.from({ length: CLIENTS }, () => download(server.url, path, layer))))
  const others = neighbours.share()
  const { requests } = await upstream.sent(layer)
  const cpu = (cpuSeconds(server.pids()) - before) / ((CLIENTS * layer.bytes) / 1e9)
  const value = ms / directMs
  const text = `${(ms / 1000).toFixed(2)} s, directly ${(directMs / 1000).toFixed(2)} s: ${value.toFixed(2)} times, of 1.3; ${requests} request upstream, ${cpu.toFixed(2)} CPU-s/GB, others used ${(others * 100).toFixed(0)} % of the machine`
  return {
    figure: `${server.name}, ${CLIENTS} clients at once for ${SIZES.layer / MB} MB at ${RATE / MB} MB/s`,
    value,
    text,
    isMet: value <= 1.3 && requests === 1,
  }
}

/** A mirror that has everything beside the registry that it mirrors, in turns. */
async function warm(name: string, index: number): Promise<readonly Verdict[]> {
  const local = await berths()[index]?.start(newDirectory())
  const mirror = await berths(mirrorOf({ bench: `${local?.url ?? ''}/` }))[index]?.start(newDirectory())
  if (local === undefined || mirror === undefined) throw new Error('there is nothing to compare with')
  try {
    const config = new Content(200)
    const blob = new Content(SIZES.blob)
    await forEach(SIZES.repositories, 8, async at => {
      await pushBlob(local, `app-${at}`, config, 'monolithic')
      await pushManifest(local, `app-${at}`, 'v1', manifestOf(config, String(at)))
    })
    await pushBlob(local, 'app-0', blob, 'monolithic')
    await forEach(SIZES.repositories, 8, async at => {
      await expect(200, mirror, 'GET', `/v2/bench/app-${at}/manifests/v1`, { drain: true })
    })
    await pullBlob(mirror, 'bench/app-0', blob, true)
    return [await compareManifests(name, local, mirror), await compareBlobs(name, local, mirror, blob)]
  } finally {
    await mirror.stop()
    await local.stop()
  }
}

async function compareManifests(name: string, local: Server, mirror: Server): Promise<Verdict> {
  const rate = async (server: Server, prefix: string): Promise<number> => {
    const requests = Array.from({ length: SIZES.repositories }, (_, at) => ({
      path: `/v2/${prefix}app-${at}/manifests/v1`,
    }))
    return (await load(server, requests, CONNECTIONS, SIZES.seconds)).perSecond
  }
  const both = [() => rate(local, ''), () => rate(mirror, 'bench/')] as const
  for (const warmUp of both) await warmUp()
  return await inTurns(`${name}, manifest GET by tag through a warm mirror`, 'requests/s', SIZES.rounds, both)
}

async function compareBlobs(name: string, local: Server, mirror: Server, blob: Content): Promise<Verdict> {
  const rate = async (server: Server, repository: string): Promise<number> => {
    const ms = await timed(() => pullBlob(server, repository, blob))
    return blob.bytes / ms / 1000
  }
  const both = [() => rate(local, 'app-0'), () => rate(mirror, 'bench/app-0')] as const
  for (const warmUp of both) await warmUp()
  return await inTurns(`${name}, blob GET through a warm mirror`, 'MB/s', SIZES.blobs, both)
}

/** The same load on both, in turns, so that whatever drifts hits them alike. The bound leaves room for noise. */
async function inTurns(
  figure: string,
  unit: string,
  rounds: number,
  [local, mirror]: readonly [() => Promise<number>, () => Promise<number>],
): Promise<Verdict> {
  const values: { readonly local: number[]; readonly mirror: number[] } = { local: [], mirror: [] }
  for (let round = 0; round < rounds; round++) {
    if (round % 2 === 0) values.local.push(await local())
    values.mirror.push(await mirror())
    if (round % 2 !== 0) values.local.push(await local())
  }
  const [own, through] = [median(values.local), median(values.mirror)]
  const value = through / own
  const text = `${through.toFixed(0)} ${unit}, locally ${own.toFixed(0)}: ${value.toFixed(2)} times, at least 0.9`
  return { figure, value, text, isMet: value >= 0.9 }
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now()
  await work()
  return performance.now() - began
}

/** GETs a layer on a connection of its own, as cheaply as it goes, and counts its bytes. */
async function download(
  url: string,
  path: string,
  { bytes }: Pick<Layer, 'bytes'>,
): Promise<{ readonly firstByteAt: number }> {
  const { hostname, port } = new URL(url)
  const { promise, resolve, reject } = Promise.withResolvers<{ readonly firstByteAt: number }>()
  let head = Buffer.of()
  let received = -1
  let firstByteAt = 0
  const take = (count: number, buffer: Uint8Array): boolean => {
    let fresh = count
    if (received < 0) {
      head = Buffer.concat([head, buffer.subarray(0, count)])
      const end = head.indexOf(HEAD_END)
      if (end === -1) return true
      if (!head.subarray(0, 12).equals(Buffer.from('HTTP/1.1 200'))) {
        reject(new Error(`${url}${path}: ${head.subarray(0, end).toString()}`))
      }
      received = 0
      fresh = head.byteLength - end - HEAD_END.byteLength
    }
    if (fresh > 0) firstByteAt ||= epochMs()
    received += fresh
    return true
  }
  const socket = connect({ host: hostname, port: Number(port), onread: { buffer: BUFFER, callback: take } })
  socket.once('error', reject)
  socket.once('close', () => {
    if (received === bytes) resolve({ firstByteAt })
    else reject(new Error(`${url}${path}: ${received} bytes of ${bytes}`))
  })
  socket.write(`GET ${path} HTTP/1.1\r\nHost: ${hostname}:${port}\r\nConnection: close\r\n\r\n`)
  return await promise
}
