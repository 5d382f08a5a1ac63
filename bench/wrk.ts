import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Server } from './servers.ts'

const SCRIPT = join(import.meta.dirname, 'manifests.lua')

/** What wrk saw. `p99Ms` of a request. */
export interface WrkResult {
  readonly requests: number
  readonly perSecond: number
  readonly p99Ms: number
}

/**
 * GETs the tag `v1` of `repositories` repositories at random over that many connections, each with the token in its line
 * of `tokens` (a file) where it is given. @throws on any answer but 200.
 */
export async function getManifests(
  server: Server,
  repositories: number,
  connections: number,
  seconds: number,
  tokens?: string,
): Promise<WrkResult> {
  const args = ['-t1', `-c${connections}`, `-d${seconds}s`, '--latency', '-s', SCRIPT, server.url, '--']
  const { stdout } = await promisify(execFile)('wrk', [
    ...args,
    String(repositories),
    ...(tokens === undefined ? [] : [tokens]),
  ])
  const fault = /Non-2xx.*|Socket errors.*/.exec(stdout)
  if (fault !== null) throw new Error(`${server.name}: ${fault[0]}`)
  return {
    requests: Number(/(\d+) requests in/.exec(stdout)?.[1]),
    perSecond: Number(/Requests\/sec:\s+([\d.]+)/.exec(stdout)?.[1]),
    p99Ms: milliseconds(/99%\s+([\d.]+[a-z]+)/.exec(stdout)?.[1] ?? ''),
  }
}

const UNITS: Readonly<Record<string, number>> = { us: 0.001, ms: 1, s: 1000 }

function milliseconds(text: string): number {
  const match = /^([\d.]+)([a-z]+)$/.exec(text)
  return Number(match?.[1]) * (UNITS[match?.[2] ?? ''] ?? Number.NaN)
}
