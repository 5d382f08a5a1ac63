import type { Middleware } from 'koa'
import { RegistryError } from '../oci/errors.ts'

/**
 * Refuses what the parser lets through: another version of HTTP in its syntax (RFC 9112 section 2.3), no Host or several (RFC 9112 section 3.2), and a query whose percent-encoding
 * is not UTF-8 (RFC 3986 section 2.1), which would be read as something the client did not mean. Names, tags and
 * digests in the path are held against their grammar, where no percent sign passes.
 */
export const wellFormed: Middleware = async (ctx, next) => {
  if (ctx.req.httpVersionMajor !== 1) throw malformed('only HTTP/1.1 and HTTP/1.0 are spoken here')
  const hosts = countHosts(ctx.req.rawHeaders)
  if (hosts > 1 || (hosts === 0 && ctx.req.httpVersion === '1.1')) throw malformed('one Host header is needed')
  if (ctx.querystring.includes('%') && !isDecodable(ctx.querystring)) {
    throw malformed('the query is not percent-encoded UTF-8')
  }
  await next()
}

function countHosts(rawHeaders: readonly string[]): number {
  let count = 0
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at]
    if (name?.length === 4 && name.toLowerCase() === 'host') count += 1
  }
  return count
}

function isDecodable(text: string): boolean {
  try {
    decodeURIComponent(text)
    return true
  } catch (error) {
    if (error instanceof URIError) return false
    throw error
  }
}

function malformed(message: string): RegistryError {
  return new RegistryError('UNSUPPORTED', { status: 400, message })
}
