import { loadConfig } from '../config.ts'

const LIMIT_MS = 5_000

/** Asks the configured address for /healthz; 0 when it answers. For a container's health check. */
export async function healthVerb(): Promise<number> {
  const { http } = loadConfig(process.env, process.cwd())
  const everywhere = http.host === '0.0.0.0' || http.host === '::'
  const host = everywhere ? '127.0.0.1' : http.host
  const url = `http://${host.includes(':') ? `[${host}]` : host}:${http.port}/healthz`
  const answer = await fetch(url, { signal: AbortSignal.timeout(LIMIT_MS) })
  return answer.ok ? 0 : 1
}
