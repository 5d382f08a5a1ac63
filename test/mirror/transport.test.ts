import assert from 'node:assert/strict'
import { type Server, createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { after, afterEach, before, suite, test } from 'node:test'
import type { Proxies } from '../../src/mirror/proxies.ts'
import { type Transport, openTransport } from '../../src/mirror/transport.ts'
import { UpstreamFailure } from '../../src/mirror/upstream-failure.ts'

/** No resolver knows it: only a proxy can be asked for it. */
const FAR = 'far.berth.test'

void suite('through proxies, or not: RFC 9112 section 3.2.2, RFC 9110 section 9.3.6', () => {
  const seen: string[] = []
  let server: Server
  let port: number
  let transport: Transport | undefined

  before(async () => {
    // As a proxy it is asked by whole URLs, as a server by paths.
    server = createServer((req, res) => {
      seen.push(`${req.method} ${req.url}`)
      res.end('here')
    })
    server.on('connect', (req, socket) => {
      seen.push(`CONNECT ${req.url}`)
      socket.end('HTTP/1.1 403 Forbidden\r\n\r\n')
    })
    await new Promise<void>(done => server.listen(0, '127.0.0.1', done))
    port = (server.address() as AddressInfo).port
  })
  afterEach(async () => {
    await transport?.close()
    seen.splice(0)
  })
  after(() => {
    server.closeAllConnections()
    server.close()
  })

  async function send(url: string, proxies: Proxies, allowPrivate = true): Promise<string> {
    transport = openTransport({ allowPrivate, proxies })
    const { body } = await transport.send('GET', new URL(url), { headers: {}, signal: new AbortController().signal })
    return await body.text()
  }
  const kindOf = async (sent: Promise<string>): Promise<string> => {
    const error = await sent.then(
      () => assert.fail('it was answered'),
      (reason: unknown) => reason,
    )
    assert.ok(error instanceof UpstreamFailure, String(error))
    return error.kind
  }
  const own = (): string => `http://127.0.0.1:${port}`

  void test('what is plain HTTP goes to its proxy by its whole URL', async () => {
    assert.equal(await send(`http://${FAR}/v2/`, { http: own(), without: [] }), 'here')
    assert.deepEqual(seen, [`GET http://${FAR}/v2/`])
  })

  void test('what is HTTPS goes through a tunnel', async () => {
    assert.equal(await kindOf(send(`https://${FAR}/v2/`, { https: own(), without: [] })), 'failed')
    assert.deepEqual(seen, [`CONNECT ${FAR}:443`])
  })

  void test('a host that is named is asked directly, whichever host the upstream is', async () => {
    const proxies = { http: own(), without: [`127.0.0.1:${port}`] }
    assert.equal(await send(`${own()}/v2/`, proxies), 'here')
    assert.deepEqual(seen, ['GET /v2/'])
  })

  void test('what is asked directly is held to public addresses though others go through a proxy', async () => {
    const proxies = { http: own(), without: ['localhost'] }
    assert.equal(await kindOf(send(`http://localhost:${port}/v2/`, proxies, false)), 'refused')
    assert.deepEqual(seen, [])
  })

  void test('an address that is not public is not asked for through a proxy either', async () => {
    assert.equal(await kindOf(send('http://169.254.169.254/latest', { http: own(), without: [] }, false)), 'refused')
    assert.deepEqual(seen, [])
  })
})
