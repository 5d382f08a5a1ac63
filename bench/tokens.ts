// What logins add to the CPU of a manifest GET, against their bound: tokens.ts [--json FILE] [--rounds N] [--seconds N]
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { Content, expect, forEach, manifestOf, pushBlob, pushManifest } from './client.ts'
import { cpuSeconds } from './process.ts'
import { type Server, berths } from './servers.ts'
import { median } from './table.ts'
import { load } from './wrk.ts'

/** As many as pull at once, each with a token of its own. */
const CLIENTS = 64
/** How much more CPU a GET may take with a token, as a share. */
const LIMIT = 0.15
const PASSWORD = 'a password of the bench'
const LOGINS = { BERTH_AUTH_MODE: 'token', BERTH_AUTH_ADMIN_PASSWORD: PASSWORD }
const AS_ADMIN = `Basic ${Buffer.from(`admin:${PASSWORD}`).toString('base64')}`

const { values: options } = parseArgs({
  options: {
    json: { type: 'string' },
    rounds: { type: 'string', default: '11' },
    seconds: { type: 'string', default: '2' },
  },
})
const directory = mkdtempSync(join(process.env['BERTH_BENCH_DIR'] ?? tmpdir(), 'berth-tokens-'))
try {
  const open = berths()
  const locked = berths(LOGINS)
  const results = []
  for (const [index, contender] of open.entries()) {
    const pair = [await contender.start(newDirectory()), await locked[index]?.start(newDirectory())] as const
    try {
      results.push({ name: contender.name, ...(await compare(pair[0], pair[1])) })
    } finally {
      for (const server of pair) await server?.stop()
    }
  }
  for (const { name, openMs, lockedMs, more } of results) {
    const verdict = more <= LIMIT ? 'ok' : 'OVER'
    const [without, with_] = [openMs, lockedMs].map(ms => ms.toFixed(4))
    console.log(
      `${verdict}  ${name}: ${without} ms of CPU a GET, ${with_} with a token: ${(more * 100).toFixed(1)} % more, of ${LIMIT * 100} %`,
    )
  }
  if (options.json !== undefined) writeFileSync(options.json, JSON.stringify(results, undefined, 2))
  if (results.length === 0 || results.some(({ more }) => more > LIMIT)) process.exitCode = 1
} finally {
  rmSync(directory, { recursive: true, force: true })
}

function newDirectory(): string {
  return mkdtempSync(join(directory, 'server-'))
}

/** The same load on both, in turns, and by pairs, so that whatever drifts hits them alike. Answers medians. */
async function compare(
  open: Server,
  locked: Server | undefined,
): Promise<{ readonly openMs: number; readonly lockedMs: number; readonly more: number }> {
  if (locked === undefined) throw new Error('there is no registry with logins to compare with')
  await fill(open)
  await fill({ ...locked, authorization: AS_ADMIN })
  const tokens = await tokensOf(locked)
  const openMs: number[] = []
  const lockedMs: number[] = []
  const cost = async (server: Server, seconds: number): Promise<number> => {
    const pids = server.pids()
    const before = cpuSeconds(pids)
    const pulls = tokens.map((token, index) => ({
      path: `/v2/bench/app-${index}/manifests/v1`,
      ...(server === locked ? { token } : {}),
    }))
    const { requests } = await load(server, pulls, CLIENTS, seconds)
    return ((cpuSeconds(pids) - before) / requests) * 1000
  }
  for (const server of [open, locked]) await cost(server, 2)
  for (let round = 0; round < Number(options.rounds); round++) {
    for (const server of round % 2 === 0 ? [open, locked] : [locked, open]) {
      ;(server === open ? openMs : lockedMs).push(await cost(server, Number(options.seconds)))
    }
  }
  const ratios = openMs.map((without, round) => (lockedMs[round] ?? Number.NaN) / without)
  return { openMs: median(openMs), lockedMs: median(lockedMs), more: median(ratios) - 1 }
}

async function fill(server: Server): Promise<void> {
  const config = new Content(200)
  await forEach(CLIENTS, 8, async index => {
    await pushBlob(server, `bench/app-${index}`, config, 'monolithic')
    await pushManifest(server, `bench/app-${index}`, 'v1', manifestOf(config, String(index)))
  })
}

/** A token for each repository, as a client that pulls it gets one. */
async function tokensOf(server: Server): Promise<readonly string[]> {
  const tokens: string[] = []
  for (let index = 0; index < CLIENTS; index++) {
    const query = `service=berth&scope=repository:bench/app-${index}:pull`
    const headers = { Authorization: AS_ADMIN }
    const { body } = await expect(200, server, 'GET', `/token?${query}`, { headers })
    tokens.push((JSON.parse(body.toString()) as { token: string }).token)
  }
  return tokens
}
