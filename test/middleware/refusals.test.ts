import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type Server, createServer } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { after, before, suite, test } from 'node:test'
import { answerRefusals } from '../../src/middleware/refusals.ts'

void suite('what Node refuses by itself', () => {
  const observed: { readonly status: number; readonly reason: string }[] = []
  let server: Server

  before(async () => {
    const options = { headersTimeout: 100, requestTimeout: 100, connectionsCheckingInterval: 20 }
    server = createServer(options, (req, res) => {
      if (req.url === '/begun') res.writeHead(200, { 'Content-Length': '10' }).write('begun')
      else res.end()
    })
    answerRefusals(server, refusal => observed.push(refusal))
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
  })
  after(async () => {
    server.close()
    server.closeAllConnections()
    await once(server, 'close')
  })

  async function say(text: string): Promise<string> {
    const socket = connect({ host: '127.0.0.1', port: (server.address() as AddressInfo).port })
    let said = ''
    socket.on('data', bytes => (said += String(bytes)))
    socket.write(text)
    await once(socket, 'close', { signal: AbortSignal.timeout(30_000) })
    return said
  }

  void test('headers that never end are 408 with the error body, then closed (RFC 9110 section 15.5.9)', async () => {
    const said = await say('GET / HTTP/1.1\r\nHost: x\r\nX: ')
    assert.match(said, /^HTTP\/1\.1 408 Request Timeout\r\n/)
    assert.match(said, /\r\nConnection: close\r\n/)
    const body = said.slice(said.indexOf('\r\n\r\n') + 4)
    assert.equal(/\r\nContent-Length: (\d+)\r\n/.exec(said)?.[1], String(body.length))
    assert.deepEqual(JSON.parse(body), {
      errors: [{ code: 'UNSUPPORTED', message: 'the request was refused: Request Timeout' }],
    })
    assert.deepEqual(observed.at(-1), { status: 408, reason: 'ERR_HTTP_REQUEST_TIMEOUT' })
  })

  void test('a refusal is answered once, however much follows it', async () => {
    const said = await say(`no http at all\r\n\r\n${'x'.repeat(100_000)}`)
    assert.match(said, /^HTTP\/1\.1 400 Bad Request\r\n/)
    assert.equal(said.split('HTTP/1.1').length, 2)
  })

  void test('a refusal is never written into an answer that has begun', async () => {
    const said = await say('POST /begun HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n')
    assert.doesNotMatch(said, /errors/)
  })
})
