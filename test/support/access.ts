import { request } from 'node:http'
import { findLocalSockets } from '../../src/local-socket.ts'
import { type TestServer, type TestServerOptions, startServer } from './server.ts'

/** The password of everybody in these tests. */
export const PASSWORD = 'a password of the tests'

/** A registry with logins. */
export interface AccessServer extends TestServer {
  /** Calls the administration's API by the server's socket. @throws where it refuses. */
  readonly administer: (method: string, path: string, body?: object) => Promise<Record<string, unknown>>
}

/** Starts a registry with logins, whose administrator is `admin` with {@link PASSWORD}. */
export async function startAccessServer(
  env: Readonly<Record<string, string>> = {},
  place: Pick<TestServerOptions, 'dataDir' | 'databaseUrl'> = {},
): Promise<AccessServer> {
  const server = await startServer({
    ...place,
    env: { BERTH_AUTH_MODE: 'token', BERTH_AUTH_ADMIN_PASSWORD: PASSWORD, BERTH_AUTH_REVOCATION_MAX_AGE: '0s', ...env },
  })
  return { ...server, administer: await administerOf(server) }
}

/** Calls the administration's API by a server's socket, as its local administrator. */
export async function administerOf(server: TestServer): Promise<AccessServer['administer']> {
  const sockets = await findLocalSockets(server.dataDir)
  const socketPath = sockets.find(path => path.includes(`/${server.process.pid}-`))
  if (socketPath === undefined) throw new Error(`the server has no socket in ${server.dataDir}`)
  return async (method, path, body) => {
    const { promise, resolve, reject } = Promise.withResolvers<{ status: number; text: string }>()
    const headers = { 'Content-Type': 'application/json' }
    request({ socketPath, method, path: `/api/v1${path}`, headers }, response => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => (text += chunk))
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text }))
    })
      .on('error', reject)
      .end(body === undefined ? undefined : JSON.stringify(body))
    const { status, text } = await promise
    if (status >= 300) throw new Error(`${method} ${path}: ${status} ${text}`)
    return text === '' ? {} : (JSON.parse(text) as Record<string, unknown>)
  }
}

/** The header that shows a name and a password. */
export function basic(name: string, password: string): string {
  return `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`
}

/** A token as clients fetch it: for these scopes, with these credentials (or none). */
export async function fetchToken(url: string, scopes: readonly string[], credentials?: string): Promise<string> {
  const query = new URLSearchParams([
    ['service', 'berth'],
    ...scopes.map((scope): [string, string] => ['scope', scope]),
  ])
  const headers = credentials === undefined ? {} : { Authorization: credentials }
  const response = await fetch(`${url}/token?${query.toString()}`, { headers })
  if (response.status !== 200) throw new Error(`no token: ${response.status} ${await response.text()}`)
  return ((await response.json()) as { token: string }).token
}
