import assert from 'node:assert/strict'
import { createHash, randomUUID } from 'node:crypto'
import { rename } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { requestsDuring, until } from '../support/clients.ts'
import { type TestServer, createDatabase, startServer } from '../support/server.ts'

const digestOf = (bytes: string): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`

let server: TestServer
before(async () => {
  server = await startServer()
})
after(() => server.stop())

const ask = (path: string, init?: RequestInit): Promise<Response> => fetch(`${server.url}${path}`, init)

async function metrics(): Promise<Map<string, number>> {
  const url = String(server.log.find(line => line['msg'] === 'listening')?.['metricsUrl'])
  const text = await (await fetch(url)).text()
  const lines = text.split('\n').filter(line => line !== '' && !line.startsWith('#'))
  return new Map(
    lines.map(line => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]),
  )
}

void describe('the access log', () => {
  void it('has one line a request: method, path, status, bytes, duration, request id, client', async () => {
    const requestId = randomUUID()
    const [line, ...more] = await requestsDuring(server, () =>
      ask('/v2/no/such/tags/list', { headers: { 'X-Request-Id': requestId } }),
    )

    assert.deepEqual(more, [])
    assert.ok(line)
    const { method, path, status, client, bytes, durationMs } = line
    assert.deepEqual([method, path, status, client], ['GET', '/v2/no/such/tags/list', 404, '127.0.0.1'])
    assert.equal(line['requestId'], requestId)
    assert.ok(Number(bytes) > 0)
    assert.ok(Number(durationMs) > 0)
  })

  void it('never holds what a client sends as a secret: credentials, cookies, queries', async () => {
    const secret = `s3cret${randomUUID()}`
    const headers = {
      Authorization: `Bearer ${secret}`,
      'Proxy-Authorization': `Basic ${secret}`,
      Cookie: `session=${secret}`,
    }
    await requestsDuring(server, async () => {
      for (const method of ['GET', 'POST', 'PUT', 'DELETE']) {
        for (const path of ['/v2/', '/v2/a/manifests/x', '/v2/a/blobs/uploads/', '/nowhere']) {
          await ask(`${path}?token=${secret}&_state=${secret}`, { method, headers })
        }
      }
    })

    assert.doesNotMatch(JSON.stringify(server.log), new RegExp(secret))
  })
})

void describe('/metrics', () => {
  void it('tells of uploads, blob bytes, statements of the index, the build and the process', async () => {
    const bytes = 'a blob of thirty letters or so'
    const digest = digestOf(bytes)
    const location = (await ask('/v2/m/blobs/uploads/', { method: 'POST' })).headers.get('location') ?? ''
    const [path] = location.split('?')
    await ask(`${path}?digest=${digest}`, { method: 'PUT', body: bytes })
    await (await ask(`/v2/m/blobs/${digest}`)).arrayBuffer()
    const cancelled = (await ask('/v2/m/blobs/uploads/', { method: 'POST' })).headers.get('location') ?? ''
    await ask(cancelled, { method: 'DELETE' })
    const ended = (m: Map<string, number>): boolean =>
      (m.get('berth_http_requests_total{method="GET",route="/v2/*name/blobs/:digest",status="200"}') ?? 0) > 0
    await until('the last request is counted', async () => ended(await metrics()))

    const found = await metrics()
    const get = (name: string): number => found.get(name) ?? Number.NaN
    assert.equal(get('berth_blob_received_bytes_total'), bytes.length)
    assert.ok(get('berth_blob_sent_bytes_total') >= bytes.length)
    assert.equal(get('berth_uploads_total{event="finished"}'), 1)
    assert.equal(get('berth_uploads_total{event="cancelled"}'), 1)
    assert.equal(get('berth_upload_transfers'), 0)
    assert.ok(get('berth_upload_transfer_duration_seconds_count') >= 1)
    assert.ok(get('berth_index_duration_seconds_count{kind="select"}') > 0)
    assert.ok(get('berth_index_duration_seconds_count{kind="transaction"}') > 0)
    assert.ok(get('berth_index_connections{state="open"}') >= 1)
    assert.ok(get('process_resident_memory_bytes') > 0)
    assert.ok([...found.keys()].some(name => /^berth_build_info\{version="\d.*",node="v\d+/.test(name)))
  })

  void it('no path, method or name a client invents makes a label (Prometheus, "Metric and label naming")', async () => {
    const word = `invented${randomUUID().slice(0, 8)}`
    await requestsDuring(server, async () => {
      await ask(`/${word}`)
      await ask(`/v2/${word}/manifests/${word}`)
      await ask(`/v2/${word}/blobs/uploads/${word}`, { method: 'PATCH' })
      for (const method of ['PURGE', 'MKCOL']) await ask(`/v2/${word}`, { method })
    })
    const names = [...(await metrics()).keys()]

    assert.deepEqual(
      names.filter(name => name.includes(word) || /PURGE|MKCOL/.test(name)),
      [],
    )
    assert.ok(names.some(name => name.includes('method="other"')))
  })

  void it('a second process whose metrics port is taken starts, and says what to do', async () => {
    const taken = new URL(String(server.log.find(line => line['msg'] === 'listening')?.['metricsUrl'])).port
    const second = await startServer({ env: { BERTH_METRICS_PORT: taken } })
    try {
      assert.equal((await fetch(`${second.url}/v2/`)).status, 200)
      const warning = second.log.find(line => line['level'] === 40 && /BERTH_METRICS_PORT/.test(String(line['msg'])))
      assert.match(String(warning?.['reason']), /EADDRINUSE/)
      assert.doesNotMatch(JSON.stringify(warning), /\n\s*at |stack/)
    } finally {
      await second.stop()
    }
  })
})

void describe('health', () => {
  void it('/readyz needs the store, /healthz only the process', async () => {
    assert.equal((await ask('/readyz')).status, 200)
    const storage = join(server.dataDir, 'storage')
    await rename(storage, `${storage}.away`)
    const answer = await ask('/readyz')
    const alive = await ask('/healthz')
    await rename(`${storage}.away`, storage)

    assert.equal(answer.status, 503)
    assert.ok(answer.headers.has('retry-after'))
    assert.equal(alive.status, 200)
    assert.equal((await ask('/readyz')).status, 200)
  })
})

// Only an index that is a server can go away.
const onPostgres = process.env['BERTH_TEST_POSTGRES'] !== undefined
if (onPostgres) {
  void it('/readyz needs the index, and the log of its absence never holds its password', async () => {
    const database = await createDatabase()
    assert.ok(database)
    const password = `s3cret${randomUUID()}`
    const url = new URL(database.url)
    url.password = password
    const own = await startServer({ databaseUrl: url.href })
    try {
      assert.equal((await fetch(`${own.url}/readyz`)).status, 200)
      await database.drop()
      assert.equal((await fetch(`${own.url}/readyz`)).status, 503)
      await until('the log says so', async () => own.log.some(line => line['msg'] === 'not ready'))
      assert.doesNotMatch(JSON.stringify(own.log), new RegExp(password))
    } finally {
      await own.stop()
    }
  })
}
