// Measures Berth beside the peers that are installed, in alternating rounds: run.ts [--quick] [--json FILE] [--only TEXT] [--rounds N]
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { arch, availableParallelism, cpus, release, totalmem, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { EFFORTS, type Figure, figures } from './figures.ts'
import { Neighbours, cpuSeconds, forgetPeak, peakBytes } from './process.ts'
import { type Contender, type Server, berths, peers } from './servers.ts'
import { type Result, renderTable } from './table.ts'

/** Share of the machine that others may use before a round is called noisy. */
const NOISE = 0.15

const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    json: { type: 'string' },
    only: { type: 'string' },
    rounds: { type: 'string' },
  },
})
const mode = options.quick ? 'quick' : 'normal'
const rounds = Number(options.rounds ?? (options.quick ? 1 : 3))
const chosen = figures(EFFORTS[mode]).filter(figure => options.only === undefined || figure.name.includes(options.only))
const directory = mkdtempSync(join(process.env['BERTH_BENCH_DIR'] ?? tmpdir(), 'berth-bench-'))
const servers: Server[] = []
try {
  const contenders = [...berths(), ...fewerPeers(peers())]
  console.error(`${machine()}\n${contenders.map(({ name }) => name).join(', ')}; ${rounds} rounds; ${mode}`)
  for (const contender of contenders) servers.push(await startIn(contender))
  const results: Result[] = []
  for (const figure of chosen) results.push(await measure(figure, servers))
  console.log(renderTable(results))
  if (options.json !== undefined) {
    writeFileSync(options.json, JSON.stringify({ machine: machine(), mode, rounds, results }, undefined, 2))
  }
} finally {
  for (const server of servers) await server.stop()
  rmSync(directory, { recursive: true, force: true })
}

/** The quick run has one peer, the fastest that is installed. */
function fewerPeers(all: readonly Contender[]): readonly Contender[] {
  if (all.length === 0) console.error('no peer is installed; see bench/README.md')
  return options.quick ? all.slice(0, 1) : all
}

async function startIn(contender: Contender): Promise<Server> {
  return await contender.start(mkdtempSync(join(directory, 'server-')))
}

/** All rounds of one figure. The registries take turns, each round in another order, so that drift hits them alike. */
async function measure(figure: Figure, all: readonly Server[]): Promise<Result> {
  const taken = new Map(all.map(server => [server, { values: [], cpu: [], peaks: [], noisy: [] } as Taken]))
  for (const server of all) await figure.prepare?.(server)
  for (let round = 0; round < rounds; round++) {
    const turn = round % all.length
    for (const server of [...all.slice(turn), ...all.slice(0, turn)]) {
      const into = taken.get(server)
      if (into !== undefined) await sample(figure, server, round, into)
    }
  }
  const series = all.map(server => {
    const { values, cpu, peaks, noisy } = taken.get(server) ?? { values: [], cpu: [], peaks: [], noisy: [] }
    return { server: server.name, values, cpu, peakBytes: Math.max(0, ...peaks), noisyRounds: noisy }
  })
  console.error(`${figure.name}: ${series.map(({ server, values }) => `${server} ${values.join(' ')}`).join('; ')}`)
  return { figure: figure.name, unit: figure.unit, better: figure.better, work: figure.work, series }
}

interface Taken {
  readonly values: number[]
  readonly cpu: number[]
  readonly peaks: number[]
  readonly noisy: number[]
}

async function sample(figure: Figure, server: Server, round: number, into: Taken): Promise<void> {
  await figure.warm?.(server)
  forgetPeak(server.pid)
  const pids = server.pids()
  const neighbours = new Neighbours(servers.flatMap(each => each.pids()))
  const before = cpuSeconds(pids)
  const { value, work } = await figure.measure(server, round)
  into.values.push(value)
  into.peaks.push(peakBytes(server.pid))
  if (work === 0) return // nothing was done: the value was taken along with another figure
  into.cpu.push((cpuSeconds(pids) - before) / work)
  if (neighbours.share() > NOISE) into.noisy.push(round)
}

function machine(): string {
  const model = cpus()[0]?.model ?? arch()
  const memory = Math.round(totalmem() / 2 ** 30)
  return `${availableParallelism()} × ${model}, ${memory} GiB, Linux ${release()}, Node ${process.version}`
}
