import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { after, before, describe, test } from 'node:test'
import { BlobMissing, type BlobStore, StoreUnavailable, type WriteState } from '../../src/storage/blob-store.ts'
import type { S3Store } from '../../src/storage/s3.ts'
import { append, bodyOf, removeItem, sent, stored } from '../storage/contract.ts'
import { type Fault, type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts'
import { type Random, runSeed, seeded } from '../support/random.ts'
import { type TestBucket, createBucket, testServers } from './support.ts'

const MiB = 1024 * 1024
const FAULTS: readonly Fault[] = [
  { kind: 'delay', ms: 50 },
  { kind: 'answer', status: 500, code: 'InternalError' },
  { kind: 'answer', status: 503, code: 'SlowDown' },
  { kind: 'cut-before' },
  { kind: 'cut-after' },
  { kind: 'half-request' },
  { kind: 'half-answer' },
]

function nameOf(fault: Fault): string {
  return fault.kind === 'answer' ? fault.code : fault.kind
}

/** Appends and finishes as a client that comes back does: from the last state it was told, until it is done. */
async function persist(store: BlobStore, content: Buffer, random: Random): Promise<{ key: string; failures: number }> {
  let state: WriteState = store.begin({})
  let failures = 0
  const expected = (error: unknown): void => {
    if (!(error instanceof StoreUnavailable)) throw error
    failures += 1
    assert.ok(failures < 600, `no progress: ${String(error.cause)}`)
  }
  while (state.offset < content.byteLength) {
    const end = Math.min(content.byteLength, state.offset + random.between(1, 12 * MiB))
    const { told, result } = await append(store, state, bodyOf(content.subarray(state.offset, end)))
    state = told.at(-1) ?? state
    if (result.status === 'rejected') expected(result.reason)
    else assert.equal(state.offset, end)
  }
  for (;;) {
    try {
      return { key: await store.finish(state), failures }
    } catch (error) {
      expected(error)
    }
  }
}

for (const server of testServers()) {
  void describe(`Faults between the store and ${server.name}`, { timeout: 240_000 }, () => {
    let bucket: TestBucket
    let proxy: FaultProxy
    let store: S3Store
    let direct: S3Store
    before(async () => {
      bucket = await createBucket(server)
      proxy = await startFaultProxy(server.endpoint)
      // One try only, so that every fault is seen by the store itself and not mended by the SDK.
      const options = { partBytes: 5 * MiB, uploadMemoryBytes: 20 * MiB, idleTimeoutMs: 10_000 }
      store = bucket.open({ ...options, endpoint: proxy.endpoint, attempts: 1 })
      direct = bucket.open(options)
    })
    after(async () => {
      await store.close()
      await direct.close()
      await proxy.close()
      await bucket.remove()
    })

    for (const fault of FAULTS) {
      void test(`A third of all requests meets ${nameOf(fault)}: what is acknowledged is whole.`, async t => {
        const seed = runSeed()
        t.diagnostic(`BERTH_TEST_SEED=${seed}`)
        const random = seeded(seed)
        proxy.plan = () => (random.next() < 1 / 3 ? fault : undefined)
        for (const size of [0, 5, 5 * MiB, 13 * MiB + 1, random.between(1, 24 * MiB)]) {
          const content = randomBytes(size)
          const { key } = await persist(store, content, random)
          assert.ok((await sent(direct, key as never)).equals(content), `${size} bytes`)
        }
        assert.equal(store.memory.held, 0)
      })

      void test(`A third of all answers to a read meets ${nameOf(fault)}: bytes come right or not at all.`, async t => {
        const seed = runSeed()
        t.diagnostic(`BERTH_TEST_SEED=${seed}`)
        const random = seeded(seed)
        const content = randomBytes(3 * MiB)
        const key = await stored(direct, content)
        let whole = 0
        for (let turn = 0; turn < 20; turn += 1) {
          proxy.plan = () => (random.next() < 1 / 3 ? fault : undefined)
          const start = random.between(0, content.byteLength - 1)
          const end = random.between(start, content.byteLength - 1)
          const [result] = await Promise.allSettled([sent(store, key, { start, end })])
          if (result.status === 'fulfilled') {
            assert.ok(result.value.equals(content.subarray(start, end + 1)), `${start}-${end}`)
            whole += 1
          } else assert.ok(result.reason instanceof StoreUnavailable, String(result.reason))
        }
        assert.ok(whole > 0)
      })
    }

    void test('With the usual number of tries, faults on one request in ten are seen by nobody.', async t => {
      const seed = runSeed()
      t.diagnostic(`BERTH_TEST_SEED=${seed}`)
      const random = seeded(seed)
      const patient = bucket.open({ endpoint: proxy.endpoint, attempts: 8, partBytes: 5 * MiB })
      t.after(() => patient.close())
      proxy.plan = () => (random.next() < 0.1 ? random.pick(FAULTS) : undefined)
      const content = randomBytes(22 * MiB)
      const { key, failures } = await persist(patient, content, random)
      assert.equal(failures, 0)
      assert.ok((await sent(patient, key as never)).equals(content))
    })

    void test('A store that refuses everything makes each call fail, and recovers by itself.', async () => {
      const refuse: Fault = { kind: 'answer', status: 500, code: 'InternalError' }
      const content = randomBytes(1000)
      proxy.plan = () => undefined
      const key = await stored(store, content)
      proxy.plan = () => refuse
      await assert.rejects(stored(store, content), StoreUnavailable)
      await assert.rejects(sent(store, key), StoreUnavailable)
      await assert.rejects(store.stat(key), StoreUnavailable)
      await assert.rejects(store.delete([key]), StoreUnavailable)
      proxy.plan = () => undefined
      assert.ok((await sent(store, key)).equals(content))
      await store.delete([key])
      await assert.rejects(sent(store, key), BlobMissing)
    })

    void test('A body that breaks off while the store fails is no success.', async () => {
      proxy.plan = ({ method }) => (method === 'GET' ? undefined : { kind: 'cut-before' })
      const body = new Readable({ read() {} })
      body.push(randomBytes(100))
      const { result } = await append(store, store.begin(), body, undefined, () => body.destroy())
      assert.ok(result.status === 'rejected' && result.reason instanceof StoreUnavailable)
      proxy.plan = () => undefined
    })

    void test('After all that, what a list names is all there is to remove.', async () => {
      for await (const item of direct.list()) await removeItem(direct, item)
      assert.deepEqual(await bucket.contents(), [])
    })
  })
}
