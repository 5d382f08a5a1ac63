import { loadConfig } from '../config.ts'

export const HEALTH_HELP = `berth health: asks the configured address for /healthz.
Ends with 0 when it answers; meant for the health check of a container.
`
const LIMIT_MS = 5_000

/** Asks the configured address for /healthz; 0 when it answers. @throws ConfigError. */
export async function healthVerb(): Promise<number> {
  const { http, tls } = loadConfig(process.env, process.cwd())
  const host = http.host === '0.0.0.0' || http.host === '::' ? '127.0.0.1' : http.host
  const url = `${tls === undefined ? 'http' : 'https'}://${host.includes(':') ? `[${host}]` : host}:${http.port}/healthz`
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(LIMIT_MS) })
    if (answer.ok) return 0
    process.stderr.write(`berth: ${url} answers ${answer.status}\n`)
  } catch {
    process.stderr.write(`berth: ${url} does not answer\n`)
  }
  return 1
}
