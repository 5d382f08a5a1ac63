import assert from 'node:assert/strict'
import dns, { type LookupAddress } from 'node:dns'
import { type Server, createServer } from 'node:http'
import { syncBuiltinESMExports } from 'node:module'
import { type AddressInfo, isIP } from 'node:net'
import { after, afterEach, before, mock, suite, test } from 'node:test'
import type { Proxies } from '../../src/mirror/proxies.ts'
import { type Transport, openTransport } from '../../src/mirror/transport.ts'
import { publicLookup } from '../../src/public-address.ts'
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

void suite(
  'what an upstream may be at, or lead to: CVE-2026-32591 (quay/quay#6058), quay/quay#6605, goharbor/harbor#23463',
  () => {
    let server: Server
    let port: number
    let asked = 0
    const transport = openTransport({ allowPrivate: false })

    before(async () => {
      server = createServer((_req, res) => {
        asked += 1
        res.end()
      })
      await new Promise<void>(done => server.listen(0, '127.0.0.1', done))
      port = (server.address() as AddressInfo).port
    })
    after(async () => {
      mock.restoreAll()
      syncBuiltinESMExports()
      await transport.close()
      server.close()
    })

    const refusalOf = async (url: string): Promise<string> =>
      await transport.send('GET', new URL(url), { headers: {}, signal: new AbortController().signal }).then(
        () => 'answered',
        (error: unknown) => (error instanceof UpstreamFailure ? error.kind : String(error)),
      )

    for (const host of [
      '127.0.0.1',
      '127.1',
      '127.0.0.1.',
      '0.0.0.0',
      '2130706433',
      '0x7f000001',
      '0177.0.0.1',
      '[::1]',
      '[::]',
      '[::127.0.0.1]',
      '[::ffff:127.0.0.1]',
      '[::ffff:7f00:1]',
      '[64:ff9b::127.0.0.1]',
      '[64:ff9b:1::7f00:1]',
      '[2002:7f00:1::]',
      '[fe80::1]',
      '[fd00:ec2::254]',
      '169.254.169.254',
      '10.0.0.1',
      '172.31.0.1',
      '192.168.0.1',
      '100.100.100.200',
      'localhost',
      'LOCALHOST',
    ]) {
      void test(`${host} is not asked`, async () => {
        assert.equal(await refusalOf(`http://${host}:${port}/`), 'refused')
        assert.equal(asked, 0)
      })
    }

    /** From now on `dns.lookup` gives these in turn, the last one for ever. */
    function resolveTo(...answers: (readonly string[])[]): () => number {
      let turn = 0
      const fake = (_host: string, _options: object, callback: (error: null, found: LookupAddress[]) => void): void => {
        const addresses = answers[Math.min(turn, answers.length - 1)] ?? []
        turn += 1
        callback(
          null,
          addresses.map(address => ({ address, family: isIP(address) })),
        )
      }
      mock.method(dns, 'lookup', fake)
      syncBuiltinESMExports()
      return () => turn
    }

    for (const addresses of [['127.0.0.1'], ['::ffff:127.0.0.1'], ['64:ff9b::7f00:1'], ['203.0.113.1', '10.0.0.1']]) {
      void test(`a name that resolves to ${addresses.join(' and ')} is not asked`, async () => {
        resolveTo(addresses)
        assert.equal(await refusalOf(`http://inside.berth.test:${port}/`), 'refused')
        assert.equal(asked, 0)
      })
    }

    void test('what was checked is what is connected to: a name is resolved once (DNS rebinding)', async () => {
      const turns = resolveTo(['203.0.113.1'], ['127.0.0.1'])
      const resolved = await new Promise((resolve, reject) => {
        publicLookup('rebound.berth.test', { all: true }, (error, found) =>
          error === null ? resolve(found) : reject(error),
        )
      })
      assert.deepEqual(resolved, [{ address: '203.0.113.1', family: 4 }])
      assert.equal(turns(), 1)
      assert.equal(await refusalOf(`http://rebound.berth.test:${port}/`), 'refused')
      assert.equal(turns(), 2)
      assert.equal(asked, 0)
    })
  },
)
