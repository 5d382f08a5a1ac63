import type Router from '@koa/router'
import { RegistryError } from '../oci/errors.ts'
import { clientGone, json, paramOf, queryValue } from './params.ts'

/** A blob on its way to this process. */
export interface SharedFetch {
  readonly size: number
  /** Sends bytes `start` to `end` (inclusive) as they come. */
  send(start: number, end: number, to: NodeJS.WritableStream, signal: AbortSignal): Promise<void>
}

/** Fetches that other processes of this registry may follow. */
export interface SharedFetches {
  /** Undefined where there is none, or the signature is not right. */
  find(id: string, signature: string): Promise<SharedFetch | { readonly message: string } | undefined>
}

/**
 * What this process fetches from upstreams, for the others of the registry and nobody else: no login opens it, only a
 * signature with the fetch's own key, which lies in the index.
 */
export function fetchRoutes(router: Router, fetches: SharedFetches): void {
  router.get('/internal/fetches/:id', async ctx => {
    const fetch = await fetches.find(paramOf(ctx, 'id'), ctx.get('Berth-Signature'))
    if (fetch === undefined) throw new RegistryError('NOT_FOUND')
    ctx.set('Cache-Control', 'no-store')
    if (!('send' in fetch)) {
      json(ctx, fetch)
      ctx.status = 424
      return
    }
    const start = Number(queryValue(ctx, 'from') ?? 0)
    if (!Number.isSafeInteger(start) || start < 0 || start > fetch.size) throw new RegistryError('RANGE_INVALID')
    ctx.status = 200
    ctx.set({
      'Content-Type': 'application/octet-stream',
      'Content-Length': String(fetch.size - start),
      'Berth-Blob-Size': String(fetch.size),
    })
    ctx.respond = false
    ctx.res.flushHeaders()
    await fetch.send(start, fetch.size - 1, ctx.res, clientGone(ctx))
    ctx.res.end()
  })
}
