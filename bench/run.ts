// Measures Berth beside the peers that are installed, in alternating rounds: run.ts [--quick] [--json FILE] [--only TEXT] [--rounds N]
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { EFFORTS, figures } from './figures.ts'
import { machine, measureRounds } from './rounds.ts'
import { type Contender, type Server, berths, peers } from './servers.ts'
import { type Result, renderTable } from './table.ts'

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
  for (const figure of chosen) results.push(await measureRounds(figure, servers, rounds))
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
