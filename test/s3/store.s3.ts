import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { after, before, beforeEach, describe, test } from 'node:test'
import {
  BlobMissing,
  ContentTooLarge,
  type StorageKey,
  StoreUnavailable,
  WriteLost,
  type WriteState,
} from '../../src/storage/blob-store.ts'
import type { S3Store, S3StoreOptions } from '../../src/storage/s3.ts'
import { append, bodyOf, sent } from '../storage/contract.ts'
import { type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts'
import { runSeed, seeded } from '../support/random.ts'
import { type TestBucket, createBucket, testServers } from './support.ts'

const MiB = 1024 * 1024
const PART = 5 * MiB
const never = new AbortController().signal

interface Write {
  readonly last?: boolean
  readonly attempt?: number
  readonly length?: number
}

/** Appends as the first of all writers, unless said otherwise, and answers the state that is durable then. */
async function write(store: S3Store, state: WriteState, bytes: Buffer, options: Write = {}): Promise<WriteState> {
  return await store.append(state, bodyOf(bytes), {
    observe: () => {},
    onDurable: async () => {},
    signal: never,
    attempt: 1,
    ...options,
  })
}

/** An append whose writer lost its right to tell: the state it began with goes on to count. */
async function forgotten(store: S3Store, state: WriteState, bytes: Buffer, options: Write): Promise<void> {
  const refusal = new Error('another took over')
  const onDurable = () => Promise.reject(refusal)
  const attempt = store.append(state, bodyOf(bytes), { observe: () => {}, onDurable, signal: never, ...options })
  await assert.rejects(attempt, error => error === refusal)
}

for (const server of testServers()) {
  void describe(`The S3 store on ${server.name}`, { timeout: 240_000 }, () => {
    let bucket: TestBucket
    let proxy: FaultProxy
    const opened: S3Store[] = []
    const open = (options: Partial<S3StoreOptions> = {}): S3Store => {
      const store = bucket.open({ partBytes: PART, uploadMemoryBytes: 4 * PART, endpoint: proxy.endpoint, ...options })
      opened.push(store)
      return store
    }
    before(async () => {
      bucket = await createBucket(server)
      proxy = await startFaultProxy(server.endpoint)
    })
    beforeEach(() => {
      proxy.seen.splice(0)
    })
    after(async () => {
      await Promise.all(opened.map(store => store.close()))
      await proxy.close()
      await bucket.remove()
    })
    const operations = (): string[] =>
      proxy.seen.map(line =>
        line
          .replace(/\/berth-[^?]*/, 'KEY')
          .replaceAll(/(uploadId)=[^&]*/g, '$1')
          .replace(/[?&]x-id=\w+/, ''),
      )

    void test('Content smaller than a part is one PutObject, whether its end is known or not.', async () => {
      const store = open()
      await store.finish(await write(store, store.begin(), randomBytes(100_000), { last: true, length: 100_000 }))
      await store.finish(await write(store, store.begin(), randomBytes(100_000)))
      assert.deepEqual(operations(), ['PUT KEY', 'PUT KEY'])
    })

    void test('Content of several parts is finished by one request, without a copy, a list or a read.', async () => {
      const store = open()
      const content = randomBytes(2 * PART + 10)
      const state = await write(store, store.begin(), content)
      assert.equal(proxy.seen.filter(line => line.startsWith('GET')).length, 0)
      proxy.seen.splice(0)
      const key = await store.finish(state)
      const [first, ...rest] = operations()
      assert.match(first ?? '', /^POST KEY\?.*uploadId/)
      // The object that held the rest goes with it.
      assert.deepEqual(rest, ['DELETE KEY'])
      assert.ok((await sent(store, key)).equals(content))
    })

    void test('A small blob is asked for once, then sent from memory, whole or in part, until it is deleted.', async () => {
      const store = open()
      const content = randomBytes(1000)
      const key = await store.finish(await write(store, store.begin(), content))
      for (let turn = 0; turn < 3; turn += 1) assert.ok((await sent(store, key)).equals(content))
      assert.ok((await sent(store, key, { start: 10, end: 19 })).equals(content.subarray(10, 20)))
      assert.equal(proxy.seen.filter(line => line.startsWith('GET')).length, 1)
      await store.delete([key])
      await assert.rejects(sent(store, key), BlobMissing)
    })

    void test('Small chunks are stored twice and read once, not once a chunk.', async () => {
      const store = open()
      const content = randomBytes(3 * PART)
      let state = store.begin() as WriteState
      for (let at = 0; at < content.byteLength; at += MiB) {
        state = await write(store, state, content.subarray(at, at + MiB), { attempt: at / MiB + 1 })
      }
      const key = await store.finish(state)
      // Each part reads back the chunks before its last one.
      assert.equal(proxy.seen.filter(line => line.startsWith('GET')).length, 3 * (PART / MiB - 1))
      assert.ok((await sent(store, key)).equals(content))
    })

    void test('Random appends, some given up, in little memory: the content is what was told to be durable.', async t => {
      const seed = runSeed()
      t.diagnostic(`BERTH_TEST_SEED=${seed}`)
      const random = seeded(seed)
      const store = open({ patienceMs: 50 })
      const one = async (): Promise<void> => {
        const content = randomBytes(random.between(0, 4 * PART))
        let state = store.begin() as WriteState
        for (let attempt = 1; state.offset < content.byteLength; attempt += 1) {
          const length = random.pick([random.between(1, 1000), random.between(1, MiB), random.between(1, 2 * PART)])
          const chunk = content.subarray(state.offset, state.offset + length)
          const last = state.offset + chunk.byteLength === content.byteLength && random.next() < 0.5
          const options = { attempt, ...(random.next() < 0.5 ? { length: chunk.byteLength } : {}) }
          // An attempt nobody remembers, with other bytes, but no more of them than the content has.
          const most = Math.min(PART, content.byteLength - state.offset)
          if (random.next() < 0.2) await forgotten(store, state, randomBytes(random.between(1, most)), options)
          state = await write(store, state, chunk, { ...options, attempt: attempt + 1, last })
          if (random.next() < 0.5) state = JSON.parse(JSON.stringify(state)) as WriteState
        }
        const key = await store.finish(state)
        assert.equal(await store.finish(state), key)
        assert.ok((await sent(store, key)).equals(content))
      }
      for (let round = 0; round < 2; round += 1) await Promise.all(Array.from({ length: 6 }, one))
      assert.equal(store.memory.held, 0)
    })

    void test('Where an attempt nobody remembers stored more parts than the content has, it is right or refused, never wrong.', async () => {
      const store = open()
      const content = randomBytes(PART + 10)
      let state = await write(store, store.begin(), content.subarray(0, PART))
      await forgotten(store, state, randomBytes(2 * PART), { attempt: 2 })
      state = await write(store, state, content.subarray(PART), { attempt: 3, last: true })
      const [finished] = await Promise.allSettled([store.finish(state)])
      // Ceph completes an upload only with every part it has.
      if (finished.status === 'rejected') assert.ok(finished.reason instanceof WriteLost, String(finished.reason))
      else assert.ok((await sent(store, finished.value)).equals(content))
    })

    void test('Twelve uploads share memory for four parts, and each gets to its end.', async () => {
      const store = open({ patienceMs: 100 })
      let most = 0
      const watch = setInterval(() => (most = Math.max(most, store.memory.held)), 1)
      const content = randomBytes(PART + MiB)
      const keys = await Promise.all(
        Array.from({ length: 12 }, async () => {
          const body = Readable.from(slices(content, 64 * 1024), { objectMode: false })
          const { result } = await append(store, store.begin(), body)
          if (result.status === 'rejected') throw result.reason
          return await store.finish(result.value)
        }),
      )
      clearInterval(watch)
      assert.ok(most <= 4 * PART, String(most))
      assert.ok(most > PART, String(most))
      for (const key of keys.slice(0, 3)) assert.ok((await sent(store, key)).equals(content))
      assert.equal(store.memory.held, 0)
    })

    void test('An upload that stops sending gives its memory to those who wait, and loses nothing.', async () => {
      const store = open({ patienceMs: 50 })
      const stalled = Array.from({ length: 4 }, () => {
        const body = new Readable({ read() {} })
        body.push(randomBytes(1000))
        const announced = { length: 2 * PART, attempt: 1 }
        const done = store.append(store.begin(), body, {
          observe: () => {},
          onDurable: async () => {},
          signal: never,
          ...announced,
        })
        return { body, done }
      })
      // They hold all the memory there is, until this one asks for some.
      const content = randomBytes(PART)
      const key = await store.finish(await write(store, store.begin(), content, { length: PART }))
      assert.ok((await sent(store, key)).equals(content))
      for (const { body } of stalled) body.push(null)
      for (const { done } of stalled) {
        const state = await done
        assert.equal(state.offset, 1000)
        assert.deepEqual(await store.stat(await store.finish(state)), { size: 1000 })
      }
    })

    void test('A request of an earlier writer that arrives late changes no blob.', async () => {
      const store = open()
      const begun = store.begin()
      const late = Promise.withResolvers<void>()
      const arrived = Promise.withResolvers<void>()
      const slow = open({ endpoint: server.endpoint })
      const put = slow.bucket.put.bind(slow.bucket)
      slow.bucket.put = async (key, bytes) => {
        arrived.resolve()
        await late.promise
        await put(key, bytes)
      }
      const earlier = write(slow, begun, Buffer.from('earlier'), { attempt: 1 })
      await arrived.promise
      const key = await store.finish(await write(store, begun, Buffer.from('later'), { attempt: 2 }))
      late.resolve()
      await earlier
      assert.equal(String(await sent(store, key)), 'later')
    })

    void test('Content too large for ten thousand parts is refused with the number, before a byte of it is stored.', async () => {
      const store = open()
      const attempt = write(store, store.begin(), Buffer.from('a'), { length: 10_000 * PART + 1 })
      await assert.rejects(attempt, (error: unknown) => {
        assert.ok(error instanceof ContentTooLarge)
        assert.equal(error.limitBytes, 10_000 * PART)
        return true
      })
      assert.deepEqual(proxy.seen, [])
    })

    void test('Content known to be large gets larger parts.', async () => {
      const store = open({ uploadMemoryBytes: 16 * PART })
      const state = await write(store, store.begin(), randomBytes(7 * MiB + 1), { length: 70_000 * MiB })
      assert.equal(state.offset, 7 * MiB + 1)
      assert.equal((state.note as { partBytes: number }).partBytes, 7 * MiB)
      await store.abort(state)
    })

    void test('A multipart upload that someone else removed is no blob, and cannot be continued.', async () => {
      const store = open({ endpoint: server.endpoint })
      const state = await write(store, store.begin(), randomBytes(PART))
      await store.abort(state)
      // Ceph 16 answers 500 to completing what is gone, so that the loss is not told from a failure.
      await assert.rejects(store.finish(state), /WriteLost|StoreUnavailable/)
      // A server that refuses before it has read the part may close the connection, which is no answer.
      await assert.rejects(write(store, state, randomBytes(PART), { attempt: 2 }), /WriteLost|StoreUnavailable/)
      assert.equal(await store.stat(state.key), undefined)
    })

    void test('Finishing again after the answer was lost is success.', async () => {
      const store = open({ attempts: 1 })
      const content = randomBytes(2 * PART + 1)
      for (const last of [false, true]) {
        const state = await write(store, store.begin(), content, { last })
        proxy.plan = ({ method }) => (method === 'POST' ? { kind: 'cut-after' } : undefined)
        const [first] = await Promise.allSettled([store.finish(state)])
        proxy.plan = () => undefined
        if (first.status === 'rejected') assert.ok(first.reason instanceof StoreUnavailable)
        assert.ok((await sent(store, await store.finish(state))).equals(content))
        // Some servers remember what they completed; these are the answers of those that do not.
        for (const [status, code] of [
          [404, 'NoSuchUpload'],
          [500, 'InternalError'],
        ] as const) {
          proxy.plan = ({ method }) => (method === 'POST' ? { kind: 'answer', status, code } : undefined)
          assert.equal(await store.finish(state), state.key)
        }
        proxy.plan = () => undefined
      }
    })

    void test('A download that breaks off is taken up where it was.', async () => {
      const store = open({ attempts: 1 })
      const content = randomBytes(3 * MiB)
      const key = await store.finish(await write(store, store.begin(), content))
      let answers = 0
      proxy.plan = ({ method }) => (method === 'GET' && (answers += 1) <= 2 ? { kind: 'half-answer' } : undefined)
      assert.ok((await sent(store, key)).equals(content))
      assert.equal(answers, 3)
      answers = 0
      assert.ok((await sent(store, key, { start: 7, end: 2 * MiB })).equals(content.subarray(7, 2 * MiB + 1)))
      assert.equal(answers, 3)
      proxy.plan = () => undefined
    })

    void test('A presigned URL gives the blob, or a range of it, to anyone, as the type that was asked for.', async () => {
      const store = open({ publicEndpoint: server.endpoint })
      const content = randomBytes(1000)
      const key = await store.finish(await write(store, store.begin(), content))
      const url = await store.presign(key, 60, 'application/octet-stream')
      assert.equal(url.origin, new URL(server.endpoint).origin)
      const whole = await fetch(url)
      assert.equal(whole.status, 200)
      assert.equal(whole.headers.get('content-type'), 'application/octet-stream')
      assert.ok(Buffer.from(await whole.arrayBuffer()).equals(content))
      const range = await fetch(url, { headers: { Range: 'bytes=10-19' } })
      assert.equal(range.status, 206)
      assert.ok(Buffer.from(await range.arrayBuffer()).equals(content.subarray(10, 20)))
      url.pathname = url.pathname.replace(key, '0'.repeat(32) as StorageKey)
      assert.equal((await fetch(url)).status, 403)
    })
  })
}

function* slices(bytes: Buffer, size: number): Generator<Buffer> {
  for (let at = 0; at < bytes.byteLength; at += size) yield bytes.subarray(at, at + size)
}
