import assert from 'node:assert/strict'
import { createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, it } from 'node:test'
import Koa from 'koa'
import { errors } from '../../src/middleware/errors.ts'
import {
  type ProxyHeaders,
  forwarded,
  isSecure,
  originOf,
  refusePlainCredentials,
} from '../../src/middleware/forwarded.ts'

interface Answer {
  readonly status: number
  readonly body: { readonly ip?: string; readonly origin?: string; readonly secure?: boolean }
}

/** Asks an application that says what it knows of the request by the headers that are `believed`. */
async function ask(
  proxies: readonly string[],
  headers: Record<string, string>,
  believed: ProxyHeaders = 'x-forwarded',
): Promise<Answer> {
  const app = new Koa()
  app.use(forwarded(proxies, believed))
  app.use(errors)
  app.use(refusePlainCredentials)
  app.use(ctx => {
    ctx.body = { ip: ctx.ip, origin: originOf(ctx, undefined), secure: isSecure(ctx) }
  })
  const server = createServer((req, res) => void app.callback()(req, res))
  const { promise, resolve, reject } = Promise.withResolvers<Answer>()
  server.listen(0, '127.0.0.1', () => {
    const { port } = server.address() as AddressInfo
    request({ port, host: '127.0.0.1', agent: false, headers: { Host: 'inner:5000', ...headers } }, res => {
      let text = ''
      res.setEncoding('utf8')
      res.on('data', (chunk: string) => (text += chunk))
      res.on('end', () => resolve({ status: res.statusCode ?? 0, body: JSON.parse(text) as Answer['body'] }))
    })
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

void describe('what a proxy says of a request by Forwarded (RFC 7239)', () => {
  const hear = async (value: string, proxies: readonly string[] = ['127.0.0.0/8']): Promise<Answer['body']> =>
    (await ask(proxies, { ...LIES, Forwarded: value }, 'forwarded')).body
  /** Of the kind that is not read: a client could send them through a proxy that does not set them. */
  const LIES = { 'X-Forwarded-For': '198.51.100.66', 'X-Forwarded-Proto': 'http', 'X-Forwarded-Host': 'evil.example' }
  const OURS = 'for=203.0.113.9;proto=https;host=registry.example'
  const SEEN = { ip: '203.0.113.9', origin: 'https://registry.example', secure: true }
  const NOTHING = { ip: '127.0.0.1', origin: 'http://inner:5000', secure: false }

  it('is believed where the proxy is named, and of nobody else', async () => {
    assert.deepEqual(await hear(OURS), SEEN)
    assert.deepEqual(await hear(OURS, ['192.0.2.0/24']), NOTHING)
  })

  it('is not read where X-Forwarded-* are believed: a client could send it through the proxy', async () => {
    const { body } = await ask(['127.0.0.0/8'], {
      ...SAID,
      Forwarded: 'for=198.51.100.66;proto=http;host=evil.example',
    })
    assert.deepEqual(body, SEEN)
  })

  it('cannot be forged by a client: what counts is what the outermost proxy that is named added (section 4)', async () => {
    assert.deepEqual(await hear(`for=127.0.0.1;proto=http;host=evil.example, ${OURS}, for=127.0.0.2;proto=http`), SEEN)
  })

  it('names an address with or without a port, also of IPv6, or by a made-up name (section 6)', async () => {
    for (const [node, ip] of [
      ['203.0.113.9:8080', '203.0.113.9'],
      ['"203.0.113.9:8080"', '203.0.113.9'],
      ['"[2001:db8::9]"', '2001:db8::9'],
      ['"[2001:db8::9]:8080"', '2001:db8::9'],
      ['_hidden', '_hidden'],
      ['unknown', 'unknown'],
    ] as const) {
      const { body } = await ask(['127.0.0.0/8'], { Forwarded: `For=${node};Proto=https` }, 'forwarded')
      // An unquoted port is against the grammar (section 4), and then nothing counts.
      assert.equal(body.ip, node === '203.0.113.9:8080' ? '127.0.0.1' : ip, node)
    }
  })

  it('counts for nothing where it cannot be read, or is not there', async () => {
    for (const bad of ['for="', ';;;=', 'proto']) assert.deepEqual(await hear(bad), NOTHING, bad)
    assert.deepEqual((await ask(['127.0.0.0/8'], {}, 'forwarded')).body, NOTHING)
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
