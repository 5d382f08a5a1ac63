import { randomUUID } from 'node:crypto'
import type { Context, Middleware } from 'koa'

/** One finished request. `durationMs` in milliseconds, `bytes` of the response body, `received` of the request's. */
export interface RequestRecord {
  readonly requestId: string
  readonly method: string
  /** Without the query: it may carry what must not be logged. */
  readonly path: string
  /** The route's pattern, for metrics. */
  readonly route: string
  readonly status: number
  readonly bytes: number
  readonly received: number
  readonly durationMs: number
  readonly client: string
  readonly userAgent: string
  readonly error?: unknown
}

/** Sees each request once, when its response has ended or its client has gone. */
export type RequestObserver = (record: RequestRecord) => void

const REQUEST_ID = /^[A-Za-z0-9._-]{8,128}$/
/** The status logged for a client that left before its answer. */
const CLIENT_CLOSED = 499

/** The pattern the router found, never the path itself. */
function routeOf(ctx: Context): string {
  const { _matchedRoute: route } = ctx as { _matchedRoute?: unknown }
  return typeof route === 'string' ? route : 'none'
}

/** Gives each request an id, and tells `observe` once it is over. */
export function requestLog(observe: RequestObserver): Middleware {
  return async (ctx, next) => {
    const started = performance.now()
    const asked = ctx.get('X-Request-Id')
    const requestId = REQUEST_ID.test(asked) ? asked : randomUUID()
    ctx.state['requestId'] = requestId
    ctx.set('X-Request-Id', requestId)
    ctx.set('Docker-Distribution-Api-Version', 'registry/2.0')
    const { socket } = ctx
    const writtenBefore = socket.bytesWritten
    const readBefore = socket.bytesRead
    ctx.res.once('close', () => {
      const aborted = !ctx.res.writableFinished
      const { error } = ctx.state as { error?: unknown }
      observe({
        requestId,
        method: ctx.method,
        path: ctx.path,
        route: routeOf(ctx),
        status: aborted && !ctx.res.headersSent ? CLIENT_CLOSED : ctx.res.statusCode,
        bytes: socket.bytesWritten - writtenBefore,
        received: socket.bytesRead - readBefore,
        durationMs: performance.now() - started,
        client: ctx.ip,
        userAgent: ctx.get('User-Agent').slice(0, 200),
        ...(error === undefined ? {} : { error }),
      })
    })
    await next()
  }
}
