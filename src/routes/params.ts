import type { Context } from 'koa'
import { type RepositoryName, parseName } from '../oci/name.ts'
import type { Caller } from '../registry/context.ts'

/** The repository that a `/v2/*name/…` route matched. @throws RegistryError NAME_INVALID. */
export function nameOf(ctx: Context): RepositoryName {
  return parseName(paramOf(ctx, 'name'))
}

/** A path parameter, decoded once. */
export function paramOf(ctx: Context, key: string): string {
  const params = ctx['params'] as Record<string, string | undefined>
  return params[key] ?? ''
}

/** Every value of a query parameter, in order. */
export function queryValues(ctx: Context, key: string): string[] {
  const value = ctx.query[key]
  return value === undefined ? [] : typeof value === 'string' ? [value] : value
}

/** The last value of a query parameter. */
export function queryValue(ctx: Context, key: string): string | undefined {
  return queryValues(ctx, key).at(-1)
}

/** Who asks. Without a login everyone may do everything. */
export function callerOf(_ctx: Context): Caller {
  return { mayPush: true }
}

/** Fires when the client closes its connection before the response has ended. */
export function clientGone(ctx: Context): AbortSignal {
  const gone = new AbortController()
  const onClose = (): void => {
    if (!ctx.res.writableFinished) gone.abort()
  }
  // It may have gone while the request waited for something else.
  if (ctx.res.destroyed) onClose()
  else ctx.res.once('close', onClose)
  return gone.signal
}

/** An answer without a body; a bare status would make Koa write one. */
export function empty(ctx: Context, status: number): void {
  ctx.status = status
  ctx.body = Buffer.alloc(0)
  ctx.remove('Content-Type')
  if (status !== 204) ctx.set('Content-Length', '0')
}

/** JSON with exactly this Content-Type, no charset. */
export function json(ctx: Context, value: unknown, type = 'application/json'): void {
  const body = Buffer.from(JSON.stringify(value))
  ctx.status = 200
  ctx.body = body
  ctx.set({ 'Content-Type': type, 'Content-Length': String(body.byteLength) })
}
