import type { IncomingMessage, ServerResponse } from 'node:http'

const waiting = new WeakMap<IncomingMessage, () => void>()

/**
 * Notes a client that sends its body only once it is told to (`Expect: 100-continue`, RFC 9110 section 10.1.1). Unless
 * {@link awaited} tells it, the connection ends with the answer: the client may or may not send the body after it.
 */
export function expectsContinue(req: IncomingMessage, res: ServerResponse): void {
  const { shouldKeepAlive } = res
  res.shouldKeepAlive = false
  waiting.set(req, () => {
    res.shouldKeepAlive = shouldKeepAlive
    res.writeContinue()
  })
}

/** Whether the client still waits to be told that its body is wanted. */
export function isWaiting(req: IncomingMessage): boolean {
  return waiting.has(req)
}

/** The body of a request that has been found worth reading; tells a client that waits to send it. */
export function awaited(req: IncomingMessage): IncomingMessage {
  waiting.get(req)?.()
  waiting.delete(req)
  return req
}
