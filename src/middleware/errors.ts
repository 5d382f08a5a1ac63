import type { Context, Middleware } from 'koa'
import { ERROR_CODES, RegistryError, errorBody } from '../oci/errors.ts'
import { answerEarly, isArriving } from './linger.ts'

/** Names of errors, wherever they come from, that mean "a backend is not there now". */
const UNAVAILABLE = new Set(['DatabaseUnavailable', 'StoreUnavailable'])
const RETRY_AFTER_SECONDS = '5'
/** Headers that describe content, which an error does not have. */
const OF_CONTENT = ['Accept-Ranges', 'Cache-Control', 'Content-Range', 'Docker-Content-Digest', 'ETag']

/** The answer to an error; what is not a refusal of ours shows the client nothing but a code. */
export function toRegistryError(error: unknown): RegistryError {
  if (error instanceof RegistryError) return error
  const retry = { 'Retry-After': RETRY_AFTER_SECONDS }
  if (error instanceof Error && UNAVAILABLE.has(error.name)) {
    return new RegistryError('UNAVAILABLE', { headers: retry, cause: error })
  }
  const status = typeof error === 'object' && error !== null && 'status' in error ? Number(error.status) : 500
  if (status >= 400 && status < 500) return new RegistryError('UNSUPPORTED', { status, message: 'bad request' })
  return new RegistryError('UNKNOWN', { headers: retry, cause: error })
}

/** What Node says of a connection that its client left. */
const GONE = new Set(['ECONNRESET', 'EPIPE', 'HPE_INVALID_EOF_STATE', 'ERR_STREAM_PREMATURE_CLOSE'])

/** Whether an error only says that the client went away, which the access log tells already. */
export function isAbort(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  if (error.name === 'BodyAborted' || error.name === 'AbortError') return true
  return 'code' in error && GONE.has(String(error.code))
}

/** What a 405 must say: RFC 9110 section 15.5.6. The methods of the path but the one that was refused. */
function otherMethods(ctx: Context): string {
  const routes = (ctx['matched'] ?? []) as readonly { readonly methods: readonly string[] }[]
  const methods = new Set(routes.flatMap(route => route.methods))
  methods.delete(ctx.method)
  return [...methods].join(', ')
}

/** The one place that writes error bodies: distribution-spec, "Error Codes". */
export const errors: Middleware = async (ctx, next) => {
  try {
    await next()
  } catch (error) {
    ctx.state['error'] = error
    if (ctx.headerSent || isAbort(error)) {
      // Nothing can be said any more: the client is gone, or must see that the body ends early.
      ctx.state['aborted'] = true
      ctx.respond = false
      ctx.res.destroy()
      return
    }
    // A route that writes to the socket itself has told Koa not to, and has described what it could not send.
    ctx.respond = true
    for (const header of OF_CONTENT) ctx.remove(header)
    const refusal = toRegistryError(error)
    const requestId = String(ctx.state['requestId'])
    const isApi = ctx.path.startsWith('/api/')
    const body = Buffer.from(isApi ? problemBody(refusal, requestId) : registryBody(refusal, requestId))
    ctx.status = refusal.status
    ctx.set({
      'Content-Type': isApi ? 'application/problem+json' : 'application/json',
      'Content-Length': String(body.byteLength),
      ...refusal.headers,
    })
    if (refusal.status === 405) ctx.set('Allow', otherMethods(ctx))
    if (isArriving(ctx.req)) await answerEarly(ctx, body)
    else ctx.body = body
  }
}

function registryBody(refusal: RegistryError, requestId: string): string {
  const { entries, status, members } = refusal
  return errorBody(status < 500 ? entries : entries.map(entry => ({ ...entry, detail: { requestId } })), members)
}

/** The administration's API says it in the words of RFC 9457. */
function problemBody(refusal: RegistryError, requestId: string): string {
  const { status, code, message } = refusal
  const title = ERROR_CODES[code].message
  return JSON.stringify({ type: 'about:blank', title, status, detail: message, code, requestId })
}

/** Throws the spec's 404 for what no route took. */
export const notFound: Middleware = async (ctx, next) => {
  await next()
  const untouched = ctx.status === 404 && ctx.body === undefined && ctx.respond !== false
  if (untouched) throw new RegistryError('NAME_UNKNOWN', { message: 'there is nothing at this path' })
}
