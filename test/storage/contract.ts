import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { Readable, Writable } from 'node:stream'
import { describe, test } from 'node:test'
import {
  BlobMissing,
  BodyAborted,
  type BlobStore,
  type StorageKey,
  type StoredItem,
  type WriteState,
} from '../../src/storage/blob-store.ts'

export interface StoreFixture {
  readonly store: BlobStore
  /** Names of what a finished or forgotten transfer should not have left behind. */
  readonly leftovers: () => Promise<string[]>
  readonly cleanup: () => Promise<void>
}

const MiB = 1024 * 1024
const never = new AbortController().signal

/** A body of the given chunks. */
export function bodyOf(...chunks: readonly Uint8Array[]): Readable {
  return Readable.from(chunks, { objectMode: false })
}

export interface Appended {
  readonly seen: Buffer
  readonly told: WriteState[]
}

/** Appends, keeping what the store told; for bodies small enough to keep. */
export async function append(
  store: BlobStore,
  state: WriteState,
  body: Readable,
  signal: AbortSignal = never,
  onSeen: () => void = () => {},
  attempt = 1,
): Promise<Appended & { readonly result: PromiseSettledResult<WriteState> }> {
  const seen: Uint8Array[] = []
  const told: WriteState[] = []
  const [result] = await Promise.allSettled([
    store.append(state, body, {
      observe: bytes => {
        seen.push(Uint8Array.from(bytes))
        onSeen()
      },
      onDurable: async durable => {
        told.push(durable)
      },
      signal,
      attempt,
    }),
  ])
  return { seen: Buffer.concat(seen), told, result }
}

/** Appends, failing the test when the store does. */
export async function appended(store: BlobStore, state: WriteState, ...chunks: Uint8Array[]): Promise<WriteState> {
  const { result } = await append(store, state, bodyOf(...chunks))
  if (result.status === 'rejected') throw result.reason
  return result.value
}

/** A finished blob. */
export async function stored(store: BlobStore, bytes: Uint8Array): Promise<StorageKey> {
  return store.finish(await appended(store, store.begin({ length: bytes.byteLength }), bytes))
}

/** What `send` writes. */
export async function sent(store: BlobStore, key: StorageKey, range?: { start: number; end: number }): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  const to = new Writable({
    write(chunk: Uint8Array, _encoding, done) {
      chunks.push(Uint8Array.from(chunk))
      done()
    },
  })
  await store.send(key, range, to, never)
  assert.equal(to.writableEnded, false)
  return Buffer.concat(chunks)
}

async function readAll(store: BlobStore, key: StorageKey): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  for await (const chunk of store.read(key, never)) chunks.push(Uint8Array.from(chunk))
  return Buffer.concat(chunks)
}

async function listed(store: BlobStore): Promise<StoredItem[]> {
  const found: StoredItem[] = []
  for await (const item of store.list()) {
    assert.ok(Math.abs(Date.now() - item.modified.getTime()) < 3_600_000)
    found.push(item)
  }
  return found
}

/** Removes what a list names, as a reconcile does. */
export async function removeItem(store: BlobStore, item: StoredItem): Promise<void> {
  if (item.unfinished === undefined) await store.delete([item.key])
  else await store.abort(item.unfinished)
}

/** Removes all of some content, as the purge does. */
async function removed(store: BlobStore, state: WriteState): Promise<void> {
  await store.abort(state)
  await store.delete([state.key])
}

function assertAborted(result: PromiseSettledResult<unknown>): void {
  assert.equal(result.status, 'rejected')
  assert.ok(result.reason instanceof BodyAborted, String(result.reason))
}

/** Declares the tests that every store passes, one for each clause. */
export function describeBlobStore(name: string, make: () => Promise<StoreFixture>): void {
  // A clause leaves nothing unfinished. One that gives up an attempt answers the keys that the reconcile has to leave.
  const clause = (title: string, run: (store: BlobStore) => Promise<readonly StorageKey[] | void>): void => {
    void test(title, { timeout: 120_000 }, async () => {
      const fixture = await make()
      try {
        const kept = await run(fixture.store)
        if (kept !== undefined) {
          const items = await listed(fixture.store)
          for (const item of items) if (!kept.includes(item.key)) await removeItem(fixture.store, item)
          for (const key of kept) assert.notEqual(await fixture.store.stat(key), undefined)
        }
        assert.deepEqual(await fixture.leftovers(), [])
        await fixture.store.close()
      } finally {
        await fixture.cleanup()
      }
    })
  }
  const gone = 'f'.repeat(32) as StorageKey

  void describe(`The ${name} store`, () => {
    clause('gives every blob a key of its own.', async store => {
      const keys = new Set(Array.from({ length: 100 }, () => store.begin({}).key))
      assert.equal(keys.size, 100)
      assert.equal(store.begin({}).offset, 0)
    })

    clause('keeps an empty blob to which nothing was appended.', async store => {
      const key = await store.finish(store.begin({ length: 0 }))
      assert.deepEqual(await store.stat(key), { size: 0 })
      assert.equal((await sent(store, key)).byteLength, 0)
      assert.equal((await readAll(store, key)).byteLength, 0)
    })

    clause('tells the durable offset of an empty append.', async store => {
      const first = await append(store, store.begin({}), bodyOf())
      assert.deepEqual(
        first.told.map(state => state.offset),
        [0],
      )
      assert.equal(first.seen.byteLength, 0)
      const state = await appended(store, first.told[0] as WriteState, Buffer.from('abc'))
      const second = await append(store, state, bodyOf())
      assert.equal(second.told.at(-1)?.offset, 3)
      assert.equal(String(await sent(store, await store.finish(second.told.at(-1) as WriteState))), 'abc')
    })

    clause('joins the parts of several appends in order.', async store => {
      const parts = [randomBytes(3 * MiB + 1), randomBytes(1), randomBytes(70_000)]
      let state = store.begin({})
      for (const part of parts) {
        const { seen, told, result } = await append(store, state, bodyOf(part.subarray(0, 9), part.subarray(9)))
        assert.equal(result.status, 'fulfilled')
        assert.ok(seen.equals(part))
        assert.deepEqual(result.value, told.at(-1))
        state = result.value
      }
      const key = await store.finish(state)
      const whole = Buffer.concat(parts)
      assert.deepEqual(await store.stat(key), { size: whole.byteLength })
      assert.ok((await sent(store, key)).equals(whole))
      assert.ok((await readAll(store, key)).equals(whole))
    })

    clause('continues from a state that was kept as JSON.', async store => {
      const state = await appended(store, store.begin({}), Buffer.from('abc'))
      const again = JSON.parse(JSON.stringify(state)) as WriteState
      assert.deepEqual(again, state)
      const end = JSON.parse(JSON.stringify(await appended(store, again, Buffer.from('def')))) as WriteState
      assert.equal(String(await sent(store, await store.finish(end))), 'abcdef')
    })

    clause('replaces what an earlier attempt left beyond the offset.', async store => {
      const state = await appended(store, store.begin({}), Buffer.from('abc'))
      await appended(store, state, Buffer.from('a longer rest'))
      const end = await appended(store, state, Buffer.from('def'))
      assert.equal(end.offset, 6)
      const key = await store.finish(end)
      assert.equal(String(await sent(store, key)), 'abcdef')
      return [key]
    })

    clause('finishes without what an earlier attempt left beyond the offset.', async store => {
      const state = await appended(store, store.begin({}), Buffer.from('abc'))
      await appended(store, state, Buffer.from('def'))
      const key = await store.finish(state)
      assert.equal(String(await sent(store, key)), 'abc')
      return [key]
    })

    clause('finishes a blob twice.', async store => {
      const state = await appended(store, store.begin({}), Buffer.from('abc'))
      const key = await store.finish(state)
      assert.equal(await store.finish(state), key)
      assert.equal(String(await sent(store, key)), 'abc')
    })

    for (const content of ['', 'abc']) {
      clause(`finishes a blob of ${content.length} bytes in concurrent calls.`, async store => {
        const state = await appended(store, store.begin({}), Buffer.from(content))
        const keys = await Promise.all([store.finish(state), store.finish(state), store.finish(state)])
        assert.equal(new Set(keys).size, 1)
        assert.equal(String(await sent(store, keys[0])), content)
      })
    }

    clause('forgets unfinished content, also twice.', async store => {
      const once = await appended(store, store.begin({}), Buffer.from('abc'))
      const often = await appended(store, once, Buffer.from('def'))
      const largest = await appended(store, store.begin({}), randomBytes(17 * MiB))
      for (const state of [often, largest, often, largest]) await removed(store, state)
      assert.deepEqual(await listed(store), [])
    })

    clause('keeps a finished blob when its writing is aborted afterwards.', async store => {
      const state = await appended(store, store.begin({}), Buffer.from('abc'))
      const key = await store.finish(state)
      await store.abort(state)
      assert.equal(String(await sent(store, key)), 'abc')
    })

    clause('aborts what was never begun.', async store => {
      await store.abort(store.begin({}))
    })

    clause('never shows less than all durable bytes under a key.', async store => {
      let state = store.begin({})
      for (const part of [Buffer.from('abc'), randomBytes(17 * MiB), Buffer.from('def')]) {
        state = await appended(store, state, part)
        const found = await store.stat(state.key)
        assert.ok(found === undefined || found.size === state.offset, `${found?.size} of ${state.offset}`)
      }
      assert.deepEqual(await store.stat(await store.finish(state)), { size: 17 * MiB + 6 })
    })

    clause('sends the whole, a range, the first byte and the last byte.', async store => {
      const bytes = randomBytes(3 * MiB + 17)
      const key = await stored(store, bytes)
      const last = bytes.byteLength - 1
      assert.ok((await sent(store, key)).equals(bytes))
      for (const [start, end] of [
        [0, last],
        [5, 5 + 2 * MiB],
        [0, 0],
        [last, last],
      ] as const) {
        assert.ok((await sent(store, key, { start, end })).equals(bytes.subarray(start, end + 1)), `${start}-${end}`)
      }
    })

    clause('writes nothing when the blob to send is absent.', async store => {
      let writes = 0
      const to = new Writable({
        write(_chunk, _encoding, done) {
          writes += 1
          done()
        },
      })
      await assert.rejects(store.send(gone, undefined, to, never), BlobMissing)
      await assert.rejects(store.send(gone, { start: 0, end: 0 }, to, never), BlobMissing)
      assert.equal(writes, 0)
      assert.equal(to.destroyed, false)
    })

    clause('reads no absent blob.', async store => {
      await assert.rejects(readAll(store, gone), BlobMissing)
    })

    clause('knows no size of an absent blob.', async store => {
      assert.equal(await store.stat(gone), undefined)
    })

    clause('deletes a blob, also twice.', async store => {
      const key = await stored(store, Buffer.from('abc'))
      await store.delete([key, gone])
      await store.delete([key])
      await store.delete([])
      assert.equal(await store.stat(key), undefined)
      await assert.rejects(sent(store, key), BlobMissing)
    })

    clause('leaves other blobs alone when one is deleted or aborted.', async store => {
      const kept = await stored(store, Buffer.from('kept'))
      const open = await appended(store, store.begin({}), Buffer.from('open'))
      await store.delete([await stored(store, Buffer.from('deleted'))])
      await removed(store, await appended(store, store.begin({}), Buffer.from('aborted')))
      assert.equal(String(await sent(store, kept)), 'kept')
      assert.equal(String(await sent(store, await store.finish(open))), 'open')
    })

    clause('makes durable what came before the body failed, and continues there.', async store => {
      const bytes = randomBytes(2 * MiB)
      const cause = new Error('reset')
      const failing = Readable.from(
        (async function* () {
          yield bytes.subarray(0, MiB)
          yield bytes.subarray(MiB, MiB + 5)
          throw cause
        })(),
        { objectMode: false },
      )
      const { seen, told, result } = await append(store, store.begin({}), failing)
      assertAborted(result)
      const durable = told.at(-1)
      assert.ok(durable !== undefined)
      assert.equal(durable.offset, seen.byteLength)
      assert.ok(seen.equals(bytes.subarray(0, durable.offset)))
      const end = await appended(store, durable, bytes.subarray(durable.offset))
      assert.ok((await sent(store, await store.finish(end))).equals(bytes))
    })

    clause('treats a body that closes early as aborted.', async store => {
      const body = new Readable({ read() {} })
      body.push('abc')
      const { told, result } = await append(store, store.begin({}), body, never, () => body.destroy())
      assertAborted(result)
      assert.equal(told.at(-1)?.offset, 3)
      await removed(store, told.at(-1) as WriteState)
    })

    clause('makes durable what came before the signal fired, and lets go of the body.', async store => {
      const body = new Readable({ read() {} })
      const controller = new AbortController()
      body.push('abc')
      const abort = (): void => controller.abort()
      const { told, result } = await append(store, store.begin({}), body, controller.signal, abort)
      assertAborted(result)
      assert.equal(told.at(-1)?.offset, 3)
      for (const event of ['data', 'error', 'close']) assert.equal(body.listenerCount(event), 0, event)
      const end = await appended(store, told.at(-1) as WriteState, Buffer.from('def'))
      assert.equal(String(await sent(store, await store.finish(end))), 'abcdef')
    })

    clause('takes nothing when the signal fired before.', async store => {
      const { seen, told, result } = await append(
        store,
        store.begin({}),
        bodyOf(Buffer.from('abc')),
        AbortSignal.abort(),
      )
      assertAborted(result)
      assert.equal(seen.byteLength, 0)
      assert.equal(told.at(-1)?.offset ?? 0, 0)
      await store.abort(told.at(-1) ?? store.begin({}))
    })

    clause('passes on what the durable callback throws, and the content can be continued.', async store => {
      const state = store.begin({})
      const refusal = Object.assign(new Error('refused'), {
        code: 'ECONNREFUSED',
        syscall: 'connect',
      })
      const attempt = store.append(state, bodyOf(Buffer.from('lost')), {
        observe: () => {},
        onDurable: () => Promise.reject(refusal),
        signal: never,
      })
      await assert.rejects(attempt, error => error === refusal)
      const end = await appended(store, state, Buffer.from('abc'))
      assert.equal(String(await sent(store, await store.finish(end))), 'abc')
    })

    clause('tells durable offsets of a large body on the way, in order, up to its end.', async store => {
      const buffer = randomBytes(MiB)
      const total = 130 * MiB
      let received = 0
      const offsets: number[] = []
      const end = await store.append(store.begin({ length: total }), Readable.from(Array(130).fill(buffer)), {
        observe: bytes => {
          received += bytes.byteLength
        },
        onDurable: async ({ offset }) => {
          assert.ok(offset <= received)
          assert.ok(offset >= (offsets.at(-1) ?? 0))
          offsets.push(offset)
        },
        signal: never,
      })
      assert.ok(offsets.length >= 2, String(offsets))
      assert.ok((offsets[0] ?? 0) < total)
      assert.equal(offsets.at(-1), total)
      assert.equal(end.offset, total)
      const key = await store.finish(end)
      let at = 0
      for await (const chunk of store.read(key, never)) {
        const bytes = Buffer.from(chunk)
        for (let from = 0; from < bytes.byteLength;) {
          const length = Math.min(MiB - ((at + from) % MiB), bytes.byteLength - from)
          const phase = (at + from) % MiB
          assert.equal(buffer.compare(bytes, from, from + length, phase, phase + length), 0)
          from += length
        }
        at += bytes.byteLength
      }
      assert.equal(at, total)
    })

    clause('keeps the durable bytes behind a fence, out of reach of the writer before.', async store => {
      const before = await appended(store, store.begin({}), Buffer.from('abc'))
      let lateKey: StorageKey | undefined
      async function* lateBody(): AsyncGenerator<Buffer> {
        yield Buffer.from('d')
        // The late writer has its content open when the fence goes up, and goes on as if nothing had happened.
        const behind = await store.fence(before)
        assert.equal(behind.offset, 3)
        const next = await append(store, behind, bodyOf(Buffer.from('DEF')), never, () => {}, 2)
        assert.ok(next.result.status === 'fulfilled')
        const after = next.result.value
        lateKey = await store.finish(after)
        yield Buffer.alloc(2 * MiB, 'e')
      }
      const { result } = await append(store, before, Readable.from(lateBody()))
      assert.ok(lateKey !== undefined)
      assert.equal(String(await sent(store, lateKey)), 'abcDEF')
      if (result.status === 'fulfilled') await store.abort(result.value)
      await store.abort(before)
    })

    clause('fences content of which nothing is durable.', async store => {
      const empty = await store.fence(store.begin({}))
      assert.equal(empty.offset, 0)
      assert.equal(String(await sent(store, await store.finish(await appended(store, empty, Buffer.from('a'))))), 'a')
    })

    clause('lists everything, with what removes it.', async store => {
      assert.deepEqual(await listed(store), [])
      const blob = await stored(store, Buffer.from('abc'))
      const small = await appended(store, store.begin({}), randomBytes(9))
      const large = await appended(store, store.begin({}), randomBytes(17 * MiB))
      const found = await listed(store)
      assert.deepEqual(
        new Set(found.map(item => item.key)),
        new Set([blob, small.key, large.key, ...(large.holds ?? [])]),
      )
      for (const item of found) if (item.key !== blob) await removeItem(store, item)
      assert.deepEqual(
        (await listed(store)).map(item => item.key),
        [blob],
      )
      assert.equal(String(await sent(store, blob)), 'abc')
    })

    clause('keeps its marker beside the blobs, whole and in the place of the one before.', async store => {
      assert.equal(await store.readMarker(), undefined)
      await store.writeMarker('x'.repeat(1000))
      const text = '{"owner":"é"}'
      await store.writeMarker(text)
      assert.equal(await store.readMarker(), text)
      const key = await stored(store, Buffer.from('a'))
      assert.deepEqual(
        (await listed(store)).map(item => item.key),
        [key],
      )
      await Promise.all(['one', 'two', 'three'].map(each => store.writeMarker(each)))
      assert.match((await store.readMarker()) ?? '', /^(?:one|two|three)$/)
    })

    clause('does not run ahead of a slow destination.', async store => {
      const bytes = randomBytes(16 * MiB)
      const key = await stored(store, bytes)
      const taken: Uint8Array[] = []
      const to = new Writable({
        highWaterMark: 1,
        write(chunk: Uint8Array, _encoding, done) {
          setImmediate(() => {
            if (to.writableLength > 4 * MiB) return done(new Error(`${to.writableLength} bytes wait`))
            // Taken late, so that a buffer that is used again too early shows.
            taken.push(Uint8Array.from(chunk))
            done()
          })
        },
      })
      await store.send(key, undefined, to, never)
      assert.ok(Buffer.concat(taken).equals(bytes))
    })

    clause('stops sending when the destination closes.', async store => {
      const key = await stored(store, randomBytes(8 * MiB))
      const to = new Writable({
        write() {
          setImmediate(() => to.destroy())
        },
      })
      await assert.rejects(store.send(key, undefined, to, never), BodyAborted)
    })

    clause('stops sending when the destination fails.', async store => {
      const key = await stored(store, randomBytes(8 * MiB))
      const to = new Writable({
        write(_chunk, _encoding, done) {
          setImmediate(() => done(new Error('reset')))
        },
      })
      await assert.rejects(store.send(key, undefined, to, never), BodyAborted)
    })

    clause('stops sending and reading when the signal fires.', async store => {
      const key = await stored(store, randomBytes(8 * MiB))
      const controller = new AbortController()
      const to = new Writable({
        write() {
          setImmediate(() => controller.abort())
        },
      })
      await assert.rejects(store.send(key, undefined, to, controller.signal), BodyAborted)
      assert.equal(to.destroyed, false)
      const reading = new AbortController()
      await assert.rejects(async () => {
        for await (const _chunk of store.read(key, reading.signal)) reading.abort()
      }, BodyAborted)
    })

    clause('releases a blob whose reader leaves early.', async store => {
      const key = await stored(store, randomBytes(8 * MiB))
      for await (const _chunk of store.read(key, never)) break
    })
  })
}
