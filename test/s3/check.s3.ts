import assert from 'node:assert/strict'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { after, before, describe, test } from 'node:test'
import { checkBucket } from '../../src/storage/s3-check.ts'
import type { S3StoreOptions } from '../../src/storage/s3.ts'
import { type FaultPlan, type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts'
import { startServer } from '../support/server.ts'
import { type TestBucket, createBucket, testServers } from './support.ts'

for (const server of testServers()) {
  void describe(`The check of a bucket on ${server.name}`, { timeout: 120_000 }, () => {
    let bucket: TestBucket
    let proxy: FaultProxy
    before(async () => {
      bucket = await createBucket(server)
      proxy = await startFaultProxy(server.endpoint)
    })
    after(async () => {
      await proxy.close()
      await bucket.remove()
    })

    async function check(options: Partial<S3StoreOptions>): Promise<void> {
      const store = bucket.open({ attempts: 1, ...options })
      try {
        await checkBucket(store.bucket)
      } finally {
        await store.close()
      }
    }

    void test('A bucket that may be used passes, and nothing is left in it.', async () => {
      await check({})
      assert.deepEqual(await bucket.contents(), [])
    })

    void test('A secret that is not the right one is said to be so.', async () => {
      const credentials = { accessKeyId: server.accessKeyId, secretAccessKey: 'wrong' }
      await assert.rejects(check({ credentials }), /the secret does not belong to the access key/)
    })

    void test('An access key that nobody has is said to be so.', async () => {
      const credentials = { accessKeyId: 'nobody', secretAccessKey: server.secretAccessKey }
      await assert.rejects(check({ credentials }), /the access key is not known; check storage.s3.accessKeyId/)
    })

    void test('A bucket that does not exist is said to be so.', async () => {
      await assert.rejects(check({ bucket: 'berth-is-not-there' }), /there is no such bucket/)
    })

    void test('An address where nothing listens is said to be so.', async () => {
      await assert.rejects(check({ endpoint: 'http://127.0.0.1:1' }), /it cannot be reached; check storage.s3.endpoint/)
    })

    void test('A server without TLS behind https is said to be so.', async () => {
      const endpoint = server.endpoint.replace('http:', 'https:')
      await assert.rejects(check({ endpoint }), /is storage.s3.endpoint https where it should be http\?/)
    })

    void test('A server that never answers is given up.', async () => {
      const silent = createServer(() => {})
      await new Promise<void>(listening => silent.listen(0, '127.0.0.1', listening))
      try {
        const endpoint = `http://127.0.0.1:${(silent.address() as AddressInfo).port}`
        await assert.rejects(check({ endpoint, idleTimeoutMs: 200 }), /it cannot be reached/)
      } finally {
        silent.close()
      }
    })

    const refusals: readonly (readonly [permission: string, request: string, plan: FaultPlan])[] = [
      ['s3:ListBucket', 'listing', ({ url }) => refusedIf(url.searchParams.has('list-type'))],
      [
        's3:ListBucketMultipartUploads',
        'listing uploads',
        ({ method, url }) => refusedIf(method === 'GET' && url.searchParams.has('uploads')),
      ],
      ['s3:PutObject', 'putting', ({ method }) => refusedIf(method === 'PUT')],
      ['s3:PutObject', 'multipart', ({ method }) => refusedIf(method === 'POST')],
      [
        's3:GetObject',
        'getting',
        ({ method, url }) => refusedIf(method === 'GET' && url.pathname.split('/').length > 4),
      ],
      [
        's3:DeleteObject',
        'deleting',
        ({ method, url }) => refusedIf(method === 'DELETE' && !url.searchParams.has('uploadId')),
      ],
      [
        's3:AbortMultipartUpload',
        'aborting',
        ({ method, url }) => refusedIf(method === 'DELETE' && url.searchParams.has('uploadId')),
      ],
    ]
    for (const [permission, what, plan] of refusals) {
      void test(`Credentials without ${permission} are told that they lack it (${what}).`, async () => {
        proxy.plan = plan
        const expected = new RegExp(`${permission} is not allowed for these credentials \\(AccessDenied`)
        await assert.rejects(check({ endpoint: proxy.endpoint }), expected)
      })
    }

    void test('The region and the clock are named where the store complains about them.', async () => {
      for (const [code, advice] of [
        ['AuthorizationHeaderMalformed', /the region is not us-east-1.*set storage.s3.region/],
        ['RequestTimeTooSkewed', /the clocks of this machine and of the store differ/],
      ] as const) {
        proxy.plan = () => ({ kind: 'answer', status: 400, code })
        await assert.rejects(check({ endpoint: proxy.endpoint }), advice)
      }
    })

    void test('A registry does not start with a bucket it cannot use, and says why.', async () => {
      const env = { ...bucket.settings(), BERTH_STORAGE_S3_BUCKET: 'berth-is-not-there' }
      await assert.rejects(startServer({ env }), /ended before it listened \(1\)[^]*there is no such bucket/)
    })
  })
}

function refusedIf(is: boolean): ReturnType<FaultPlan> {
  return is ? { kind: 'answer', status: 403, code: 'AccessDenied' } : undefined
}
