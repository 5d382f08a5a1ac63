import { request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { loadConfig } from '../config.ts'
import { findLocalSockets } from '../local-socket.ts'
import { UsageError } from './usage-error.ts'

const LIMIT_MS = 60_000

/** Where the commands of administration send their calls. */
export interface ApiTarget {
  /** `https://registry.example`; without it the running server of this data directory is asked by its socket. */
  readonly server: string | undefined
  /** What {@link server} is shown, as an `Authorization` header. */
  readonly authorization: string | undefined
}

/** What keeps a command from being carried out: a refusal by the API in its words, or that nobody can be asked. */
export class ApiRefusal extends Error {
  override readonly name = 'ApiRefusal'
}

/** Calls the administration's API. */
export interface ApiClient {
  /** The answer's JSON, or undefined where there is none. @throws ApiRefusal */
  call(method: string, path: string, body?: object): Promise<unknown>
  /** Every item of a list, page by page. @throws ApiRefusal */
  all(path: string, query?: Query): Promise<readonly Row[]>
  /** The first page of a list. @throws ApiRefusal */
  page(path: string, query: Query): Promise<readonly Row[]>
}

type Query = Readonly<Record<string, string | undefined>>

/** An entry of a list as the API answers it. */
export type Row = Readonly<Record<string, unknown>>

/** Finds whom to ask. @throws ApiRefusal with what to do where nobody is there, UsageError, ConfigError. */
export async function openApiClient(target: ApiTarget): Promise<ApiClient> {
  const send = target.server === undefined ? await bySocket() : byUrl(target.server, target.authorization)
  const call = async (method: string, path: string, body?: object): Promise<unknown> => {
    const { status, text } = await send(method, `/api/v1${path}`, body === undefined ? undefined : JSON.stringify(body))
    if (status >= 200 && status < 300) return text === '' ? undefined : (JSON.parse(text) as unknown)
    throw new ApiRefusal(detailOf(text) ?? `the server answered ${status}`)
  }
  const read = async (path: string, query: Query): Promise<Page> => {
    const params = Object.entries(query).filter((entry): entry is [string, string] => entry[1] !== undefined)
    return (await call('GET', `${path}?${new URLSearchParams(params).toString()}`)) as Page
  }
  return {
    call,
    page: async (path, query) => (await read(path, query)).items,
    async all(path, query = {}) {
      const items: Row[] = []
      let last: string | undefined
      do {
        const page = await read(path, { ...query, last })
        items.push(...page.items)
        last = page.next
      } while (last !== undefined)
      return items
    },
  }
}

interface Page {
  readonly items: readonly Row[]
  readonly next?: string
}

interface Answer {
  readonly status: number
  readonly text: string
}

type Send = (method: string, path: string, body: string | undefined) => Promise<Answer>

async function bySocket(): Promise<Send> {
  const { data } = loadConfig(process.env, process.cwd())
  const [socketPath] = await localSockets(data.dir)
  if (socketPath === undefined) {
    throw new ApiRefusal(
      `no server runs on ${data.dir}: start it with berth serve, set BERTH_DATA_DIR to the data directory of the one that runs,\nor name one with --server https://registry.example and a token in BERTH_TOKEN`,
    )
  }
  return async (method, path, body) => await exchange(httpRequest({ socketPath, method, path, ...options(body) }), body)
}

async function localSockets(dataDir: string): Promise<readonly string[]> {
  try {
    return await findLocalSockets(dataDir)
  } catch (error) {
    if (!isForbidden(error)) throw error
    throw new ApiRefusal(
      `the server's socket in ${dataDir} is another user's: run this as the user who runs the server`,
    )
  }
}

function isForbidden(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'EACCES' || error.code === 'EPERM')
}

function byUrl(server: string, authorization: string | undefined): Send {
  if (authorization === undefined) {
    throw new ApiRefusal('--server needs a token in BERTH_TOKEN or --token-file, or a password with --login NAME')
  }
  if (!/^https?:$/.test(URL.parse(server)?.protocol ?? '')) {
    throw new UsageError(`--server ${server}: write https://registry.example`, '')
  }
  return async (method, path, body) => {
    const url = new URL(path, server)
    const send = url.protocol === 'https:' ? httpsRequest : httpRequest
    const { headers, ...rest } = options(body)
    return await exchange(send(url, { method, ...rest, headers: { ...headers, Authorization: authorization } }), body)
  }
}

function options(body: string | undefined): { timeout: number; headers: Record<string, string> } {
  return { timeout: LIMIT_MS, headers: body === undefined ? {} : { 'Content-Type': 'application/json' } }
}

async function exchange(request: ReturnType<typeof httpRequest>, body: string | undefined): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>()
  request.on('error', (error: NodeJS.ErrnoException) => {
    const reason = error.message === '' ? error.code : error.message
    reject(new ApiRefusal(`the server does not answer (${reason})`))
  })
  request.on('timeout', () => request.destroy(new Error('it took too long')))
  request.on('response', response => {
    let text = ''
    response.setEncoding('utf8')
    response.on('data', (chunk: string) => (text += chunk))
    response.on('end', () => resolve({ status: response.statusCode ?? 0, text }))
    response.on('error', error => reject(new ApiRefusal(`the server broke off (${error.message})`)))
  })
  request.end(body)
  return await promise
}

function detailOf(text: string): string | undefined {
  try {
    const problem: unknown = JSON.parse(text)
    if (typeof problem !== 'object' || problem === null || !('detail' in problem)) return undefined
    return typeof problem.detail === 'string' ? problem.detail : undefined
  } catch {
    return undefined
  }
}
