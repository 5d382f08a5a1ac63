import type Router from '@koa/router'
import type { Context } from 'koa'
import { z } from 'zod'
import type { Actor } from '../../access/actor.ts'
import type { Page } from '../../access/page.ts'
import { RegistryError } from '../../oci/errors.ts'
import { nextLink } from '../../oci/pagination.ts'
import { isStorable } from '../../oci/text.ts'
import { empty, json, paramOf, readBody } from '../params.ts'

export const API_PREFIX = '/api/v1'
const MAX_BODY_BYTES = 256 * 1024
const PAGE = 100
const PAGE_MAX = 1_000

/** One call of the API: what it takes, what it gives, and what it does. The OpenAPI document is made of these. */
export interface Endpoint {
  readonly method: 'get' | 'post' | 'put' | 'patch' | 'delete'
  /** Below {@link API_PREFIX}; parameters as `:name`, at the end as `*name` where they may hold slashes. */
  readonly path: string
  readonly summary: string
  readonly query: z.ZodObject
  readonly body: z.ZodObject | undefined
  readonly status: 200 | 201 | 204
  readonly answer: z.ZodType | undefined
  readonly handle: (call: Call<unknown, unknown>) => Promise<unknown>
}

/** A call whose input was found valid. */
export interface Call<Q, B> {
  readonly actor: Actor
  readonly query: Q
  readonly body: B
  /** A parameter of the path. */
  readonly param: (name: string) => string
}

/** Declares an endpoint; the types of its schemas are those its handler sees. */
export function endpoint<Q extends z.ZodObject, B extends z.ZodObject, A extends z.ZodType>(declared: {
  readonly method: Endpoint['method']
  readonly path: string
  readonly summary: string
  readonly query?: Q
  readonly body?: B
  readonly status?: Endpoint['status']
  readonly answer?: A
  readonly handle: (call: Call<z.output<Q>, z.output<B>>) => Promise<unknown>
}): Endpoint {
  return {
    method: declared.method,
    path: declared.path,
    summary: declared.summary,
    query: declared.query ?? z.strictObject({}),
    body: declared.body,
    status: declared.status ?? (declared.answer === undefined ? 204 : 200),
    answer: declared.answer,
    handle: declared.handle as Endpoint['handle'],
  }
}

/** The query of a list: a page after `last`. */
export const pageQuery = z.strictObject({
  last: z.string().max(300).default('').describe('The last entry of the page before'),
  limit: z.coerce.number().int().min(1).max(PAGE_MAX).default(PAGE),
})

/** A list endpoint: answers one page under `items`, and a Link to the next where there is one (RFC 8288). */
export function listEndpoint<Q extends typeof pageQuery>(declared: {
  readonly path: string
  readonly summary: string
  readonly query?: Q
  readonly item: z.ZodType
  readonly page: (call: Call<z.output<Q>, unknown>) => Promise<Page<object>>
}): Endpoint {
  return endpoint({
    method: 'get',
    path: declared.path,
    summary: declared.summary,
    query: declared.query ?? pageQuery,
    answer: z.object({
      items: z.array(declared.item),
      next: z.string().optional().describe('What `last` is for the next page, where there is one'),
    }),
    handle: call => declared.page(call as Call<z.output<Q>, unknown>),
  })
}

/** Routes the endpoints; `identify` says who calls. */
export function apiRoutes(
  router: Router,
  endpoints: readonly Endpoint[],
  identify: (ctx: Context) => Promise<Actor>,
): void {
  for (const declared of endpoints) {
    router[declared.method](`${API_PREFIX}${declared.path}`, async ctx => {
      const actor = await identify(ctx)
      const query = parse(declared.query, ctx.query, 'query')
      const body = declared.body === undefined ? undefined : parse(declared.body, await readJson(ctx), 'body')
      const answer = await declared.handle({ actor, query, body, param: name => checked(paramOf(ctx, name), name) })
      ctx.set('Cache-Control', 'no-store')
      if (declared.answer === undefined) {
        empty(ctx, declared.status)
        return
      }
      json(ctx, answer)
      ctx.status = declared.status
      linkNext(ctx, answer)
    })
  }
}

function linkNext(ctx: Context, answer: unknown): void {
  const next = typeof answer === 'object' && answer !== null && 'next' in answer ? answer.next : undefined
  if (typeof next !== 'string') return
  const query = Object.entries(ctx.query).filter(([, value]) => value !== undefined) as [string, string][]
  ctx.set('Link', nextLink(ctx.path, { ...Object.fromEntries(query), last: next }))
}

function parse(schema: z.ZodObject, input: unknown, where: string): unknown {
  const result = schema.safeParse(input)
  if (result.success) return checked(result.data, where)
  const faults = result.error.issues.map(issue => `${[where, ...issue.path].join('.')}: ${issue.message}`)
  throw new RegistryError('INVALID', { message: faults.slice(0, 20).join('; ').slice(0, 2_000) })
}

/** The input itself. @throws RegistryError INVALID for text in it that the index cannot hold. */
function checked<T>(input: T, where: string): T {
  if (typeof input === 'string' && !isStorable(input)) {
    throw new RegistryError('INVALID', { message: `${where}: must not contain NUL or half a surrogate pair` })
  }
  if (typeof input === 'object' && input !== null) {
    for (const [key, value] of Object.entries(input)) checked(value, `${where}.${checked(key, where)}`)
  }
  return input
}

async function readJson(ctx: Context): Promise<unknown> {
  // A page of another site can make a browser that knows the password send a form or plain text, but not this type.
  if (ctx.is('application/json') === false) {
    throw new RegistryError('INVALID', { status: 415, message: 'send JSON, with Content-Type: application/json' })
  }
  const text = (await readBody(ctx, MAX_BODY_BYTES, 'a request', 'INVALID')).toString('utf8')
  try {
    return text === '' ? {} : JSON.parse(text)
  } catch {
    throw new RegistryError('INVALID', { message: 'the body is not JSON' })
  }
}
