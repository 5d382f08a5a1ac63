import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import type { RequestListener } from 'node:http'
import { type Server, createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { StoreUnavailable } from '../../src/storage/blob-store.ts'
import { newKey } from '../../src/storage/keys.ts'
import { S3Bucket } from '../../src/storage/s3-bucket.ts'
import { makeCertificate } from '../support/certificate.ts'

const MiB = 1024 * 1024
const PART = 16 * MiB

void describe('A part on its way to an S3 server over TLS (RFC 8446)', () => {
  const certificate = makeCertificate()
  const opened: S3Bucket[] = []
  const servers: Server[] = []
  let directory: string
  let caFile: string
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'berth-test-s3-tls-'))
    caFile = join(directory, 'ca.pem')
    await writeFile(caFile, certificate.cert)
  })
  after(async () => {
    for (const bucket of opened) bucket.close()
    for (const server of servers) {
      server.closeAllConnections()
      await new Promise(done => server.close(done))
    }
    await rm(directory, { recursive: true, force: true })
  })

  /** A bucket at a server that does with each request what `handle` does. */
  async function bucketAt(handle: RequestListener, attempts: number): Promise<S3Bucket> {
    const server = createServer(certificate, handle)
    servers.push(server)
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const bucket = new S3Bucket({
      bucket: 'images',
      prefix: '',
      region: 'us-east-1',
      endpoint: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
      pathStyle: true,
      credentials: { accessKeyId: 'id', secretAccessKey: 'secret' },
      caFile,
      idleTimeoutMs: 60_000,
      attempts,
    })
    opened.push(bucket)
    return bucket
  }

  void test('It arrives whole and with its length, also when it is sent again.', async () => {
    const bytes = randomBytes(PART + 1)
    const arrived: string[] = []
    const bucket = await bucketAt((req, res) => {
      const hash = createHash('sha256')
      req.on('data', (chunk: Buffer) => hash.update(chunk))
      req.on('end', () => {
        arrived.push(`${req.headers['content-length']} ${hash.digest('hex')}`)
        if (arrived.length === 1) res.writeHead(503).end('<Error><Code>SlowDown</Code></Error>')
        else res.writeHead(200, { ETag: '"etag"' }).end()
      })
    }, 2)
    assert.equal(await bucket.putPart(newKey(), 'upload', 1, bytes), '"etag"')
    const sent = `${bytes.byteLength} ${createHash('sha256').update(bytes).digest('hex')}`
    assert.deepEqual(arrived, [sent, sent])
  })

  void test('It is not in memory a second time, encrypted, while the server is slow to take it.', async () => {
    const count = 12
    const bytes = randomBytes(PART)
    let arriving = 0
    const all = Promise.withResolvers<void>()
    const bucket = await bucketAt((req, res) => {
      req.once('readable', () => {
        arriving += 1
        if (arriving === count) all.resolve()
      })
      res.on('error', () => undefined)
    }, 1)
    const before = process.memoryUsage.rss()
    const parts = Array.from({ length: count }, (_, index) => bucket.putPart(newKey(), 'upload', index + 1, bytes))
    const outcomes = Promise.allSettled(parts)
    await all.promise
    const grown = process.memoryUsage.rss() - before
    servers.at(-1)?.closeAllConnections()
    for (const outcome of await outcomes) {
      assert.ok(outcome.status === 'rejected' && outcome.reason instanceof StoreUnavailable)
    }
    assert.ok(grown < (count * PART) / 2, `${Math.round(grown / MiB)} MiB more for ${(count * PART) / MiB} MiB`)
  })
})
