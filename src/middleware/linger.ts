import type { IncomingMessage } from 'node:http'
import type { Context } from 'koa'
import { isWaiting } from './expect.ts'

/** What a client may still send after its refusal, in bytes and in milliseconds, before the connection is closed. */
const DRAIN_BYTES = 64 * 1024 * 1024
const DRAIN_MS = 30_000

/** Whether the body of this request is still on its way. */
export function isArriving(req: IncomingMessage): boolean {
  const { 'transfer-encoding': coding, 'content-length': length } = req.headers
  return !req.complete && !isWaiting(req) && (coding !== undefined || Number(length) > 0)
}

/**
 * Answers a request whose body is still arriving. A client that only reads once it has written would lose the answer to
 * a reset if the connection were closed, so the whole answer goes out first and what comes is read and dropped, within
 * limits: RFC 9112 section 9.6. A client that ends its body in time keeps its connection.
 */
export async function answerEarly(ctx: Context, body: Buffer): Promise<void> {
  const { req, res } = ctx
  ctx.respond = false
  if (Number(ctx.get('Content-Length')) > DRAIN_BYTES) ctx.set('Connection', 'close')
  res.flushHeaders()
  res.write(body)
  const drained = await drain(req)
  res.end(() => {
    if (!drained) req.socket.destroySoon()
  })
}

/** Reads what is left of a request; false where there was too much of it, or it took too long, or the client went. */
async function drain(req: IncomingMessage): Promise<boolean> {
  if (req.destroyed) return false
  const { promise, resolve } = Promise.withResolvers<boolean>()
  const limit = setTimeout(() => resolve(false), DRAIN_MS)
  let dropped = 0
  const drop = (bytes: Buffer): void => {
    dropped += bytes.byteLength
    if (dropped > DRAIN_BYTES) resolve(false)
  }
  req.on('data', drop)
  req.once('end', () => resolve(true))
  req.once('close', () => resolve(false))
  req.resume()
  try {
    return await promise
  } finally {
    clearTimeout(limit)
    req.off('data', drop)
  }
}
