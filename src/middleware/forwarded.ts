import { isIPv4 } from 'node:net'
import type { Context, Middleware } from 'koa'
import proxyAddr from 'proxy-addr'
import { RegistryError } from '../oci/errors.ts'

/** What a trusted proxy said of the request it passed on. */
interface Forwarded {
  readonly protocol: string | undefined
  readonly host: string | undefined
}

const HOST = /^(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?$/

/**
 * Takes the client's address, protocol and host from `X-Forwarded-*`, but only of a peer that is named as a proxy.
 * Anybody else could say whatever he likes.
 * @param proxies addresses and networks, such as `10.0.0.0/8`
 */
export function forwarded(proxies: readonly string[]): Middleware {
  const isTrusted = proxyAddr.compile([...proxies])
  return async (ctx, next) => {
    if (isTrusted(ctx.socket.remoteAddress ?? '', 0)) {
      ctx.request.ip = proxyAddr(ctx.req, isTrusted)
      const said: Forwarded = { protocol: first(ctx, 'X-Forwarded-Proto'), host: first(ctx, 'X-Forwarded-Host') }
      ctx.state['forwarded'] = said
    }
    await next()
  }
}

function first(ctx: Context, header: string): string | undefined {
  const value = ctx.get(header).split(',')[0]?.trim()
  return value === undefined || value === '' ? undefined : value
}

/** Whether the client speaks TLS, to us or to a trusted proxy. */
export function isSecure(ctx: Context): boolean {
  const said = ctx.state['forwarded'] as Forwarded | undefined
  return said?.protocol === undefined ? ctx.secure : said.protocol.toLowerCase() === 'https'
}

/**
 * The address under which the client reaches us, without a path: `https://registry.example`.
 * @throws RegistryError with 400 where the Host is none: it would end up in a header.
 */
export function originOf(ctx: Context, publicUrl: string | undefined): string {
  if (publicUrl !== undefined) return publicUrl
  const said = ctx.state['forwarded'] as Forwarded | undefined
  const host = said?.host ?? ctx.host
  if (!HOST.test(host))
    throw new RegistryError('UNSUPPORTED', { status: 400, message: 'the Host header is not the name of a host' })
  return `${isSecure(ctx) ? 'https' : 'http'}://${host}`
}

/**
 * Refuses credentials that crossed a network in the clear: they are known to whoever listened, and must not work on.
 * Loopback is no network.
 */
export const refusePlainCredentials: Middleware = async (ctx, next) => {
  const shows = ctx.get('Authorization') !== '' || (ctx.method === 'POST' && ctx.path === '/token')
  if (shows && !isSecure(ctx) && !isLoopbackAddress(ctx.ip)) {
    throw new RegistryError('DENIED', {
      message:
        'credentials over plain HTTP are refused: use https (settings tls.cert and tls.key, or http.trustedProxies for a proxy with TLS), or allow it with auth.allowPlainHttp',
    })
  }
  await next()
}

function isLoopbackAddress(address: string): boolean {
  const plain = address.replace(/^::ffff:/i, '')
  return plain === '::1' || (isIPv4(plain) && plain.startsWith('127.'))
}
