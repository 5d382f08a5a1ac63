import assert from 'node:assert/strict'
import { administrationEndpoints } from '../../src/routes/api/routes.ts'
import type { Administration } from '../../src/access/administration.ts'
import type { Registry } from '../../src/registry/registry.ts'
import type { Endpoint } from '../../src/routes/api/endpoint.ts'
import { type AccessServer, PASSWORD, basic } from './access.ts'

/** Every endpoint of the administration's API, as it is declared. */
export const ENDPOINTS: readonly Endpoint[] = administrationEndpoints({} as Administration, {} as Registry)

/** What the API answered. */
export interface ApiAnswer {
  readonly status: number
  readonly headers: Headers
  /** The parsed body, or undefined where it is empty. */
  readonly body: unknown
}

/** Calls the API of a server with an `Authorization` header, or without one. */
export async function callApi(
  url: string,
  authorization: string | undefined,
  method: string,
  path: string,
  body?: object,
): Promise<ApiAnswer> {
  const response = await fetch(`${url}/api/v1${path}`, {
    method,
    headers: {
      ...(authorization === undefined ? {} : { Authorization: authorization }),
      ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  const text = await response.text()
  const parsed: unknown = text === '' ? undefined : JSON.parse(text)
  return { status: response.status, headers: response.headers, body: parsed }
}

/** What a problem document says in words. */
export function detailOf({ body }: ApiAnswer): string {
  return (body as { detail: string }).detail
}

/** The API of one server, called by its administrator unless somebody else is named by an `Authorization` header. */
export interface Api {
  /** What shows that the administrator calls. */
  readonly admin: string
  readonly call: (method: string, path: string, body?: object, as?: string) => Promise<ApiAnswer>
  /** Every entry of a list, page by page along its Links. */
  readonly list: (path: string, as?: string) => Promise<readonly Record<string, unknown>[]>
  /** Adds a user with {@link PASSWORD}; answers what shows it. */
  readonly makeUser: (name: string) => Promise<string>
  /** Adds a user who administers a pattern; answers what shows it. */
  readonly makeTeamAdmin: (name: string, pattern: string) => Promise<string>
}

export function apiOf({ url }: AccessServer): Api {
  const admin = basic('admin', PASSWORD)
  const call: Api['call'] = async (method, path, body, as = admin) => await callApi(url, as, method, path, body)
  const makeUser: Api['makeUser'] = async name => {
    assert.equal((await call('POST', '/users', { name, password: PASSWORD })).status, 201)
    return basic(name, PASSWORD)
  }
  return {
    admin,
    call,
    makeUser,
    async list(path, as) {
      const items: Record<string, unknown>[] = []
      let next: string | undefined = path
      while (next !== undefined) {
        const { status, headers, body } = await call('GET', next, undefined, as)
        assert.equal(status, 200)
        items.push(...(body as { items: Record<string, unknown>[] }).items)
        next = /^<\/api\/v1([^>]+)>; rel="next"$/.exec(headers.get('link') ?? '')?.[1]
      }
      return items
    },
    async makeTeamAdmin(name, pattern) {
      const credentials = await makeUser(name)
      const grant = { subject: { kind: 'principal', name }, pattern, actions: ['admin'] }
      assert.equal((await call('POST', '/grants', grant)).status, 201)
      return credentials
    },
  }
}
