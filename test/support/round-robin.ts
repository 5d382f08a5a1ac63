import { type IncomingMessage, type ServerResponse, createServer, request as ask } from 'node:http'
import type { AddressInfo } from 'node:net'
import { pipeline } from 'node:stream/promises'

/** A load balancer as simple as one can be. */
export interface RoundRobin {
  /** `http://127.0.0.1:PORT` */
  readonly url: string
  /** `127.0.0.1:PORT` */
  readonly host: string
  /** Requests that each target was given. */
  readonly counts: readonly number[]
  close(): Promise<void>
}

/**
 * Listens on a free port and gives every request to the next of `targets`, whatever connection it came on. Nothing is
 * tried twice, and nothing of a request or an answer is changed.
 */
export async function startRoundRobin(targets: readonly string[]): Promise<RoundRobin> {
  const upstreams = targets.map(target => new URL(target))
  const counts = targets.map(() => 0)
  let turn = 0
  const server = createServer((req, res) => {
    const index = (turn += 1) % upstreams.length
    counts[index] = (counts[index] ?? 0) + 1
    const upstream = upstreams[index]
    if (upstream === undefined) throw new RangeError('there is nobody to give requests to')
    pass(req, res, upstream).catch(() => res.destroy())
  })
  server.requestTimeout = 0
  const { promise, resolve } = Promise.withResolvers<void>()
  server.listen(0, '127.0.0.1', resolve)
  await promise
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    url: `http://${host}`,
    host,
    counts,
    close: async () => {
      server.closeAllConnections()
      await new Promise(done => server.close(done))
    },
  }
}

async function pass(req: IncomingMessage, res: ServerResponse, { hostname, port }: URL): Promise<void> {
  const { method, url: path, headers } = req
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
  const forward = ask({ host: hostname, port, method, path, headers, agent: false }, resolve).on('error', reject)
  // An early answer is passed on while the body is still coming; what breaks the body off breaks the answer off as well.
  const sent = pipeline(req, forward).catch(reject)
  const answer = await promise
  res.writeHead(answer.statusCode ?? 502, answer.statusMessage, answer.rawHeaders)
  await pipeline(answer, res)
  await sent
}
