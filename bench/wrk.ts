import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Server } from './servers.ts'

const SCRIPT = join(import.meta.dirname, 'requests.lua')

/** One GET that wrk sends again and again. */
export interface LoadRequest {
  readonly path: string
  readonly token?: string
}

/** What wrk saw; times of a request in milliseconds. */
export interface WrkResult {
  readonly requests: number
  readonly perSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
}

/** Sends `requests` at random over that many connections. @throws on any answer but 2xx. */
export async function load(
  server: Server,
  requests: readonly LoadRequest[],
  connections: number,
  seconds: number,
): Promise<WrkResult> {
  const directory = await mkdtemp(join(tmpdir(), 'berth-wrk-'))
  try {
    const file = join(directory, 'requests')
    await writeFile(file, requests.map(({ path, token }) => `${path} ${token ?? ''}\n`).join(''))
    const args = [
      '-t1',
      `-c${connections}`,
      `-d${seconds}s`,
      '--timeout',
      '30s',
      '--latency',
      '-s',
      SCRIPT,
      server.url,
      '--',
      file,
    ]
    const { stdout } = await promisify(execFile)('wrk', args)
    const fault = /Non-2xx.*|Socket errors.*/.exec(stdout)
    if (fault !== null) throw new Error(`${server.name}: ${fault[0]}`)
    return {
      requests: Number(/(\d+) requests in/.exec(stdout)?.[1]),
      perSecond: Number(/Requests\/sec:\s+([\d.]+)/.exec(stdout)?.[1]),
      p50Ms: milliseconds(/50%\s+([\d.]+[a-z]+)/.exec(stdout)?.[1] ?? ''),
      p99Ms: milliseconds(/99%\s+([\d.]+[a-z]+)/.exec(stdout)?.[1] ?? ''),
    }
  } finally {
    await rm(directory, { recursive: true })
  }
}

const UNITS: Readonly<Record<string, number>> = { us: 0.001, ms: 1, s: 1000 }

function milliseconds(text: string): number {
  const match = /^([\d.]+)([a-z]+)$/.exec(text)
  return Number(match?.[1]) * (UNITS[match?.[2] ?? ''] ?? Number.NaN)
}
