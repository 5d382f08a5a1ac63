import assert from 'node:assert/strict'
import { createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, it } from 'node:test'
import Koa from 'koa'
import { errors } from '../../src/middleware/errors.ts'
import { forwarded, isSecure, originOf, refusePlainCredentials } from '../../src/middleware/forwarded.ts'

interface Answer {
  readonly status: number
  readonly body: { readonly ip?: string; readonly origin?: string; readonly secure?: boolean }
}

/** Asks an application that says what it knows of the request; `from` is the address the request comes from. */
async function ask(proxies: readonly string[], headers: Record<string, string>, from = '127.0.0.1'): Promise<Answer> {
  const app = new Koa()
  app.use(forwarded(proxies))
  app.use(errors)
  app.use(refusePlainCredentials)
  app.use(ctx => {
    ctx.body = { ip: ctx.ip, origin: originOf(ctx, undefined), secure: isSecure(ctx) }
  })
  const server = createServer((req, res) => void app.callback()(req, res))
  const { promise, resolve, reject } = Promise.withResolvers<Answer>()
  server.listen(0, '127.0.0.1', () => {
    const { port } = server.address() as AddressInfo
    request(
      { port, host: '127.0.0.1', localAddress: from, agent: false, headers: { Host: 'inner:5000', ...headers } },
      res => {
        let text = ''
        res.setEncoding('utf8')
        res.on('data', (chunk: string) => (text += chunk))
        res.on('end', () => resolve({ status: res.statusCode ?? 0, body: JSON.parse(text) as Answer['body'] }))
      },
    )
      .on('error', reject)
      .end()
  })
  try {
    return await promise
  } finally {
    server.close()
  }
}

const SAID = { 'X-Forwarded-For': '203.0.113.9', 'X-Forwarded-Proto': 'https', 'X-Forwarded-Host': 'registry.example' }

void describe('what a proxy says of a request', () => {
  it('is believed where the proxy is named: address, protocol and host', async () => {
    const { body } = await ask(['127.0.0.0/8'], SAID)
    assert.deepEqual(body, { ip: '203.0.113.9', origin: 'https://registry.example', secure: true })
  })

  it('is not believed of anybody else', async () => {
    const { body } = await ask(['192.0.2.0/24'], SAID)
    assert.deepEqual(body, { ip: '127.0.0.1', origin: 'http://inner:5000', secure: false })
  })

  it('cannot be forged by a client behind the proxy: the last address that is not a proxy counts', async () => {
    const { body } = await ask(['127.0.0.0/8'], { ...SAID, 'X-Forwarded-For': '127.0.0.1, 203.0.113.9' })
    assert.equal(body.ip, '203.0.113.9')
  })
})

void describe('credentials over plain HTTP', () => {
  const basic = { Authorization: 'Basic YTpi' }

  it('are taken from loopback', async () => {
    assert.equal((await ask([], basic)).status, 200)
  })

  it('are refused with 403 where they crossed a network, and taken where a trusted proxy had them over TLS', async () => {
    const inTheClear = { ...basic, 'X-Forwarded-For': '203.0.113.9', 'X-Forwarded-Proto': 'http' }
    assert.equal((await ask(['127.0.0.0/8'], inTheClear)).status, 403)
    assert.equal((await ask(['127.0.0.0/8'], { ...basic, ...SAID })).status, 200)
  })

  it('matter only where there are any', async () => {
    assert.equal((await ask(['127.0.0.0/8'], { 'X-Forwarded-For': '203.0.113.9' })).status, 200)
  })
})
