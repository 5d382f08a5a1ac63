import type { Context } from 'koa'
import { type RepositoryName, parseName } from '../oci/name.ts'
import type { Authority, VisibleNames } from '../auth/authority.ts'
import { awaited } from '../middleware/expect.ts'
import type { GateState } from '../middleware/gate.ts'
import { type ErrorCode, RegistryError } from '../oci/errors.ts'
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

/** Who asks, as the gate found out. Without logins everyone may do everything. */
export function callerOf(ctx: Context): Caller {
  const { access } = ctx.state as GateState
  if (access === undefined) return { mayPush: true }
  const name = paramOf(ctx, 'name')
  const { principalId, provenance } = access.identity
  const repositoryId = access.repositoryId(name)
  return {
    mayPush: access.may('push', name),
    principal: access.identity.name,
    ...(principalId === undefined ? {} : { principalId }),
    ...(provenance === undefined ? {} : { provenance }),
    ...(repositoryId === undefined ? {} : { repositoryId }),
  }
}

/** The repositories that the caller may pull. */
export async function visibleTo(ctx: Context, authority: Authority | undefined): Promise<VisibleNames> {
  const { access } = ctx.state as GateState
  return authority === undefined || access === undefined ? [] : await authority.visibleNames(access.identity)
}

/**
 * The repositories that the caller may list. A token of another issuer that allows listing allows all of it, as in
 * Distribution: what its subject may pull is not known here.
 */
export async function listedTo(ctx: Context, authority: Authority | undefined): Promise<VisibleNames> {
  const { access } = ctx.state as GateState
  return access?.identity.kind === 'foreign' ? [] : await visibleTo(ctx, authority)
}

/** A form as browsers and OAuth 2 clients send it. @throws RegistryError with 413 or 400. */
export async function readForm(ctx: Context, maxBytes: number): Promise<URLSearchParams> {
  const type = (ctx.get('Content-Type').split(';')[0] ?? '').trim().toLowerCase()
  if (type !== 'application/x-www-form-urlencoded') {
    throw new RegistryError('UNSUPPORTED', { status: 400, message: 'send a form: application/x-www-form-urlencoded' })
  }
  return new URLSearchParams((await readBody(ctx, maxBytes, 'a form')).toString('utf8'))
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

/** The whole request body, which is `what`. @throws RegistryError `code` with 413 as soon as it is too large. */
export async function readBody(
  ctx: Context,
  maxBytes: number,
  what: string,
  code: ErrorCode = 'MANIFEST_INVALID',
): Promise<Buffer> {
  const tooLarge = () =>
    new RegistryError(code, {
      status: 413,
      message: `${what} may have at most ${maxBytes} bytes`,
    })
  if (Number(ctx.get('Content-Length')) > maxBytes) throw tooLarge()
  const chunks: Buffer[] = []
  let size = 0
  // Leaving the loop must not destroy the request: the answer goes over the same socket.
  for await (const chunk of awaited(ctx.req).iterator({ destroyOnReturn: false })) {
    const bytes = chunk as Buffer
    size += bytes.byteLength
    if (size > maxBytes) throw tooLarge()
    chunks.push(bytes)
  }
  return Buffer.concat(chunks, size)
}
