import assert from 'node:assert/strict'
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, it } from 'node:test'
import type { TLSSocket } from 'node:tls'
import { listen } from '../src/http-server.ts'
import { type TestCertificate, makeCertificate } from './support/certificate.ts'
import { until } from './support/clients.ts'
import { startServer } from './support/server.ts'

let directory: string
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'berth-test-tls-'))
})
after(() => rm(directory, { recursive: true }))

async function write(certificate: TestCertificate): Promise<{ cert: string; key: string }> {
  const files = { cert: join(directory, 'cert.pem'), key: join(directory, 'key.pem') }
  for (const part of ['key', 'cert'] as const) {
    await writeFile(`${files[part]}.new`, certificate[part])
    await rename(`${files[part]}.new`, files[part])
  }
  return files
}

interface Seen {
  readonly status: number
  readonly protocol: string | null
  readonly realm: string
}

async function ask(url: string, ca: string, maxVersion: 'TLSv1.1' | 'TLSv1.3' = 'TLSv1.3'): Promise<Seen> {
  const { promise, resolve, reject } = Promise.withResolvers<Seen>()
  const minVersion = maxVersion === 'TLSv1.1' ? 'TLSv1.1' : 'TLSv1.2'
  request(url, { ca, agent: false, minVersion, maxVersion, ciphers: 'DEFAULT@SECLEVEL=0' }, answer => {
    const protocol = (answer.socket as TLSSocket).getProtocol()
    answer.resume()
    resolve({ status: answer.statusCode ?? 0, protocol, realm: answer.headers['www-authenticate'] ?? '' })
  })
    .on('error', reject)
    .end()
  return await promise
}

it('speaks TLS 1.2 and later, and sends clients to its own https address for tokens (RFC 8996)', async () => {
  const certificate = makeCertificate()
  const { cert, key } = await write(certificate)
  const server = await startServer({ env: { BERTH_TLS_CERT: cert, BERTH_TLS_KEY: key, BERTH_AUTH_MODE: 'token' } })
  try {
    assert.match(server.url, /^https:/)
    const { status, protocol, realm } = await ask(`${server.url}/v2/`, certificate.cert)
    assert.deepEqual([status, protocol], [401, 'TLSv1.3'])
    assert.equal(realm, `Bearer realm="${server.url}/token",service="berth"`)
    await assert.rejects(ask(`${server.url}/v2/`, certificate.cert, 'TLSv1.1'))
  } finally {
    await server.stop()
  }
})

it('takes a new certificate without a restart, and keeps the former where the new one is broken', async () => {
  const first = makeCertificate()
  const files = await write(first)
  const seen: string[] = []
  const server = await listen({
    host: '127.0.0.1',
    port: 0,
    idleTimeoutMs: 60_000,
    handle: async (_req, res) => void res.end('hello'),
    onRefusal: () => undefined,
    tls: { ...files, reloaded: () => seen.push('reloaded'), failed: () => seen.push('failed') },
  })
  try {
    assert.equal((await ask(server.url, first.cert)).status, 200)
    await writeFile(files.cert, 'no certificate')
    await until('the broken file was seen', async () => seen.includes('failed'))
    assert.equal((await ask(server.url, first.cert)).status, 200)
    const second = makeCertificate()
    await write(second)
    await until('the new certificate is used', async () =>
      ask(server.url, second.cert).then(
        ({ status }) => status === 200,
        () => false,
      ),
    )
    await assert.rejects(ask(server.url, first.cert))
  } finally {
    await server.close(0)
  }
})
