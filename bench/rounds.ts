import { arch, availableParallelism, cpus, release, totalmem } from 'node:os'
import type { Figure } from './figure.ts'
import { Neighbours, cpuSeconds, forgetPeak, peakBytes } from './process.ts'
import type { Server } from './servers.ts'
import type { Result } from './table.ts'

/** Share of the machine that others may use before a round is called noisy. */
const NOISE = 0.15

/** All rounds of one figure. The registries take turns, each round in another order, so that drift hits them alike. */
export async function measureRounds(figure: Figure, all: readonly Server[], rounds: number): Promise<Result> {
  const taken = new Map(all.map(server => [server, { values: [], cpu: [], peaks: [], noisy: [] } as Taken]))
  for (const server of all) await figure.prepare?.(server)
  for (let round = 0; round < Math.min(rounds, figure.rounds ?? rounds); round++) {
    const turn = round % all.length
    for (const server of [...all.slice(turn), ...all.slice(0, turn)]) {
      const into = taken.get(server)
      if (into !== undefined) await sample(figure, server, all, round, into)
    }
  }
  const series = all.map(server => {
    const { values, cpu, peaks, noisy } = taken.get(server) ?? { values: [], cpu: [], peaks: [], noisy: [] }
    return { server: server.name, values, cpu, peakBytes: Math.max(0, ...peaks), noisyRounds: noisy }
  })
  return { figure: figure.name, unit: figure.unit, better: figure.better, work: figure.work, series }
}

interface Taken {
  readonly values: number[]
  readonly cpu: number[]
  readonly peaks: number[]
  readonly noisy: number[]
}

async function sample(
  figure: Figure,
  server: Server,
  all: readonly Server[],
  round: number,
  into: Taken,
): Promise<void> {
  await figure.warm?.(server)
  forgetPeak(server.pid)
  const pids = server.pids()
  const neighbours = new Neighbours(all.flatMap(each => each.pids()))
  const before = cpuSeconds(pids)
  const { value, work } = await figure.measure(server, round)
  into.values.push(value)
  into.peaks.push(peakBytes(server.pid))
  if (work === 0) return // nothing was done: the value was taken along with another figure
  into.cpu.push((cpuSeconds(pids) - before) / work)
  if (neighbours.share() > NOISE) into.noisy.push(round)
}

/** What the figures were taken on, in one line. */
export function machine(): string {
  const model = cpus()[0]?.model ?? arch()
  const memory = Math.round(totalmem() / 2 ** 30)
  return `${availableParallelism()} × ${model}, ${memory} GiB, Linux ${release()}, Node ${process.version}`
}
