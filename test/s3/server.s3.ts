import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { layoutDescriptor, makeLayout, removeScratch, run, scratch } from '../support/clients.ts'
import { type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts'
import { type TestServer, startServer } from '../support/server.ts'
import { type TestBucket, createBucket, testServers } from './support.ts'

const MiB = 1024 * 1024

function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`
}

/** Pushes a blob by one POST and one PUT. */
async function pushBlob(registry: TestServer, bytes: Buffer): Promise<Response> {
  const begun = await fetch(`${registry.url}/v2/team/app/blobs/uploads/`, { method: 'POST' })
  assert.equal(begun.status, 202)
  const target = new URL(`${begun.headers.get('location')}?digest=${digestOf(bytes)}`, registry.url)
  return await fetch(target, { method: 'PUT', body: bytes, headers: { 'Content-Type': 'application/octet-stream' } })
}

for (const server of testServers()) {
  void describe(`A registry with its blobs on ${server.name}`, { timeout: 240_000 }, () => {
    let bucket: TestBucket
    let proxy: FaultProxy
    let streaming: TestServer
    let redirecting: TestServer
    let work: string
    let layout: string
    before(async () => {
      bucket = await createBucket(server)
      proxy = await startFaultProxy(server.endpoint)
      work = await scratch()
      layout = await makeLayout(work, 'image', [{ path: '/hello', content: 'hello\n' }])
      const settings = { ...bucket.settings(proxy.endpoint), BERTH_STORAGE_S3_ATTEMPTS: '2' }
      streaming = await startServer({ env: settings })
      const redirect = { BERTH_STORAGE_S3_REDIRECT: 'true', BERTH_STORAGE_S3_PUBLIC_ENDPOINT: server.endpoint }
      redirecting = await startServer({ env: { ...settings, ...redirect } })
    })
    after(async () => {
      await streaming?.stop()
      await redirecting?.stop()
      await proxy?.close()
      await bucket?.remove()
      await removeScratch(work)
    })

    for (const [title, registry] of [
      ['off', () => streaming],
      ['on', () => redirecting],
    ] as const) {
      void test(`skopeo pushes an image and pulls it with an equal digest, redirects ${title}.`, async () => {
        const reference = `docker://${registry().host}/team/image:1`
        const out = join(work, `out-${title}`)
        await run('skopeo', ['copy', '--dest-tls-verify=false', `oci:${layout}:latest`, reference])
        await run('skopeo', ['copy', '--src-tls-verify=false', reference, `oci:${out}:latest`])
        assert.equal((await layoutDescriptor(out)).digest, (await layoutDescriptor(layout)).digest)
      })
    }

    void test('RFC 9110, 15.4.8: whole and single-range GETs go to the store, a HEAD and several ranges do not.', async () => {
      const content = randomBytes(100_000)
      assert.equal((await pushBlob(redirecting, content)).status, 201)
      const url = `${redirecting.url}/v2/team/app/blobs/${digestOf(content)}`
      const ask = (headers: Record<string, string>, method = 'GET'): Promise<Response> =>
        fetch(url, { method, headers, redirect: 'manual' })
      for (const headers of [{}, { Range: 'bytes=10-19' }]) {
        const answer = await ask(headers)
        assert.equal(answer.status, 307)
        assert.equal(new URL(answer.headers.get('location') ?? '').origin, new URL(server.endpoint).origin)
        assert.equal(answer.headers.get('docker-content-digest'), digestOf(content))
        assert.equal(answer.headers.get('cache-control'), 'no-store')
        assert.equal(answer.headers.get('content-length'), '0')
      }
      const followed = await fetch(url, { headers: { Range: 'bytes=10-19' } })
      assert.equal(followed.status, 206)
      assert.ok(Buffer.from(await followed.arrayBuffer()).equals(content.subarray(10, 20)))
      const head = await ask({}, 'HEAD')
      assert.deepEqual([head.status, head.headers.get('content-length')], [200, '100000'])
      const several = await ask({ Range: 'bytes=0-9,20-29' })
      assert.equal(several.status, 206)
      await several.arrayBuffer()
      const beyond = await ask({ Range: 'bytes=100000-' })
      assert.equal(beyond.status, 416)
    })

    void test('While the store refuses everything pushes and pulls are 503 with Retry-After, and work again afterwards.', async () => {
      const [kept, content] = [randomBytes(1000), randomBytes(17 * MiB)]
      assert.equal((await pushBlob(streaming, kept)).status, 201)
      proxy.plan = () => ({ kind: 'answer', status: 503, code: 'SlowDown' })
      try {
        for (const answer of [
          await pushBlob(streaming, content),
          await fetch(`${streaming.url}/v2/team/app/blobs/${digestOf(kept)}`),
        ]) {
          assert.equal(answer.status, 503)
          assert.match(answer.headers.get('retry-after') ?? '', /^\d+$/)
          const { errors } = (await answer.json()) as { errors: { code: string }[] }
          assert.equal(errors[0]?.code, 'UNAVAILABLE')
        }
      } finally {
        proxy.plan = () => undefined
      }
      assert.equal((await pushBlob(streaming, content)).status, 201)
      const pulled = await fetch(`${streaming.url}/v2/team/app/blobs/${digestOf(content)}`)
      assert.ok(Buffer.from(await pulled.arrayBuffer()).equals(content))
    })

    void test('A blob that breaks off in the store breaks off for the client too, never ends early.', async () => {
      const content = randomBytes(3 * MiB)
      assert.equal((await pushBlob(streaming, content)).status, 201)
      let answers = 0
      proxy.plan = ({ method }) => {
        if (method !== 'GET') return undefined
        answers += 1
        return answers === 1 ? { kind: 'half-answer' } : { kind: 'cut-before' }
      }
      try {
        const pulled = await fetch(`${streaming.url}/v2/team/app/blobs/${digestOf(content)}`)
        assert.equal(pulled.status, 200)
        await assert.rejects(pulled.arrayBuffer())
      } finally {
        proxy.plan = () => undefined
      }
    })
  })
}
