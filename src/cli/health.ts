import { request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { loadConfig } from '../config.ts'

export const HEALTH_HELP = `berth health: asks the configured address for /healthz.
Ends with 0 when it answers; meant for the health check of a container.
`
const LIMIT_MS = 5_000

/** Asks the configured address for /healthz; 0 when it answers. @throws ConfigError. */
export async function healthVerb(): Promise<number> {
  const { http, tls } = loadConfig(process.env, process.cwd())
  const host = http.host === '0.0.0.0' || http.host === '::' ? '127.0.0.1' : http.host
  const protocol = tls === undefined ? 'http' : 'https'
  const url = `${protocol}://${host.includes(':') ? `[${host}]` : host}:${http.port}/healthz`
  const status = await statusOf(url).catch(() => undefined)
  if (status === 200) return 0
  process.stderr.write(`berth: ${url} ${status === undefined ? 'does not answer' : `answers ${status}`}\n`)
  return 1
}

async function statusOf(url: string): Promise<number | undefined> {
  const { promise, resolve, reject } = Promise.withResolvers<number | undefined>()
  const signal = AbortSignal.timeout(LIMIT_MS)
  // The certificate is for the name that clients use, and this asks by address for nothing that is secret.
  const asked = url.startsWith('https:')
    ? httpsRequest(url, { signal, rejectUnauthorized: false })
    : httpRequest(url, { signal })
  asked.on('error', reject)
  asked.on('response', answer => {
    answer.resume()
    resolve(answer.statusCode)
  })
  asked.end()
  return await promise
}
