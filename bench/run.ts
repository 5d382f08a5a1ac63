// Measures Berth beside the peers that are installed, in alternating rounds: run.ts [--quick | --full] [--json FILE] [--only TEXT] [--rounds N]
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { EFFORTS, figures } from './figures.ts'
import { machine, measureRounds } from './rounds.ts'
import { type Contender, type Server, berths, peers } from './servers.ts'
import { type Result, TABLE_HEAD, renderRows } from './table.ts'

const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    full: { type: 'boolean', default: false },
    json: { type: 'string' },
    only: { type: 'string' },
    rounds: { type: 'string' },
  },
})
const mode = options.quick ? 'quick' : options.full ? 'full' : 'normal'
const rounds = Number(options.rounds ?? (options.quick ? 1 : 3))
const EXPECTED = { quick: '3', normal: '15', full: '35' } as const
const chosen = figures(EFFORTS[mode]).filter(figure => options.only === undefined || figure.name.includes(options.only))
const directory = mkdtempSync(join(process.env['BERTH_BENCH_DIR'] ?? tmpdir(), 'berth-bench-'))
const servers: Server[] = []
try {
  const contenders = [...berths(), ...fewerPeers(peers())]
  console.error(
    `${machine()}\n${contenders.map(({ name }) => name).join(', ')}; ${rounds} rounds; ${mode}: about ${EXPECTED[mode]} minutes`,
  )
  for (const contender of contenders) servers.push(await startIn(contender))
  const results: Result[] = []
  console.log(TABLE_HEAD)
  for (const figure of chosen) {
    const result = await measureRounds(figure, servers, rounds)
    results.push(result)
    console.log(renderRows(result))
    if (options.json !== undefined) {
      writeFileSync(options.json, JSON.stringify({ machine: machine(), mode, rounds, results }, undefined, 2))
    }
  }
} finally {
  for (const server of servers) await server.stop()
  rmSync(directory, { recursive: true, force: true })
}

/** One peer, the newest that is installed, is enough but for the full run. */
function fewerPeers(all: readonly Contender[]): readonly Contender[] {
  if (all.length === 0) console.error('no peer is installed; see bench/README.md')
  return options.full ? all : all.slice(0, 1)
}

async function startIn(contender: Contender): Promise<Server> {
  return await contender.start(mkdtempSync(join(directory, 'server-')))
}
