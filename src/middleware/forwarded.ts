import { isIPv4 } from 'node:net'
import parseForwarded from 'forwarded-parse'
import type { Context, Middleware } from 'koa'
import proxyAddr from 'proxy-addr'
import { RegistryError } from '../oci/errors.ts'

/** What a trusted proxy said of the request it passed on. */
interface Forwarded {
  readonly protocol: string | undefined
  readonly host: string | undefined
}

const HOST = /^(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?$/

/** What proxies say of a request by: `X-Forwarded-*`, or `Forwarded` (RFC 7239). */
export type ProxyHeaders = 'x-forwarded' | 'forwarded'

/**
 * Takes the client's address, protocol and host from the headers of a proxy, but only of a peer that is named as one.
 * Anybody else could say whatever he likes; and so could a client by the headers that the proxy does not set, so only one
 * kind is read.
 * @param proxies addresses and networks, such as `10.0.0.0/8`
 */
export function forwarded(proxies: readonly string[], headers: ProxyHeaders): Middleware {
  const isTrusted = proxyAddr.compile([...proxies])
  return async (ctx, next) => {
    if (isTrusted(ctx.socket.remoteAddress ?? '', 0)) {
      const said: Forwarded & { readonly address?: string } =
        headers === 'forwarded' ? outermost(ctx, isTrusted) : legacy(ctx, isTrusted)
      if (said.address !== undefined) ctx.request.ip = said.address
      ctx.state['forwarded'] = said
    }
    await next()
  }
}

/** One proxy's parameters, by their names in lower case. */
type Element = Readonly<Record<string, string>>
type Trust = (address: string, hop: number) => boolean

function legacy(ctx: Context, isTrusted: Trust): Forwarded & { readonly address: string } {
  const said = { protocol: first(ctx, 'X-Forwarded-Proto'), host: first(ctx, 'X-Forwarded-Host') }
  return { ...said, address: proxyAddr(ctx.req, isTrusted) }
}

/**
 * What the outermost of our proxies says: each adds its element at the end (RFC 7239 section 4), so what a client sent
 * itself stands before it.
 */
function outermost(ctx: Context, isTrusted: Trust): Forwarded & { readonly address?: string } {
  const elements = readForwarded(ctx)
  let at = elements.length - 1
  while (at > 0 && isTrusted(addressOf(elements[at]) ?? '', elements.length - at)) at -= 1
  const address = addressOf(elements[at])
  return {
    protocol: elements[at]?.['proto'],
    host: elements[at]?.['host'],
    ...(address === undefined ? {} : { address }),
  }
}

/** Elements in the order they were added; none where a proxy sent what cannot be read. */
function readForwarded(ctx: Context): readonly Element[] {
  try {
    return parseForwarded(ctx.get('Forwarded'))
  } catch {
    return []
  }
}

/** The node without its port and brackets: RFC 7239 section 6. It may be no address but a name its proxy made up. */
function addressOf(element: Element | undefined): string | undefined {
  return element?.['for']?.replace(/^\[(.*)\](?::[\w.-]+)?$/, '$1').replace(/^([^:]*):[\w.-]+$/, '$1')
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
export const refusePlainCredentials: Middleware = (ctx, next) => {
  const shows = ctx.get('Authorization') !== '' || (ctx.method === 'POST' && ctx.path === '/token')
  if (shows && !isSecure(ctx) && !isLoopbackAddress(ctx.ip)) {
    throw new RegistryError('DENIED', {
      message:
        'credentials over plain HTTP are refused: use https (settings tls.cert and tls.key, or http.trustedProxies for a proxy with TLS), or allow it with auth.allowPlainHttp',
    })
  }
  return next()
}

function isLoopbackAddress(address: string): boolean {
  const plain = address.replace(/^::ffff:/i, '')
  return plain === '::1' || (isIPv4(plain) && plain.startsWith('127.'))
}
