import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { mkdtemp, open, readdir, readlink, rm, stat, truncate } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable, Writable } from 'node:stream'
import { test } from 'node:test'
import type { FileHandle } from 'node:fs/promises'
import { BlobMissing, StoreUnavailable, type StorageKey, type WriteState } from '../../src/storage/blob-store.ts'
import type { OpenFile } from '../../src/storage/file-support.ts'
import { openFilesystemStore, type FilesystemOptions } from '../../src/storage/filesystem.ts'
import { append, appended, bodyOf, describeBlobStore, sent, stored, type StoreFixture } from './contract.ts'

const MiB = 1024 * 1024
const never = new AbortController().signal

async function openDescriptors(directory: string): Promise<string[]> {
  const descriptors = await readdir('/proc/self/fd')
  const targets = await Promise.all(descriptors.map(fd => readlink(`/proc/self/fd/${fd}`).catch(() => '')))
  return targets.filter(target => target.startsWith(directory))
}

async function make(options: Omit<FilesystemOptions, 'directory'> = {}): Promise<StoreFixture & { directory: string }> {
  const directory = await mkdtemp(join(tmpdir(), 'filesystem-store-'))
  return {
    directory,
    store: await openFilesystemStore({ ...options, directory }),
    leftovers: async () => [
      ...(await readdir(directory)).filter(entry => !['blobs', 'uploads', 'marker'].includes(entry)),
      ...(await readdir(join(directory, 'uploads'))),
      ...(await openDescriptors(directory)),
    ],
    cleanup: () => rm(directory, { recursive: true, force: true }),
  }
}

describeBlobStore('filesystem', make)

type Writev = (buffers: readonly Uint8Array[], position?: number | null) => Promise<{ readonly bytesWritten: number }>

/** Opens files whose `writev` is replaced. */
function writingThrough(replace: (writev: Writev) => Writev): OpenFile {
  return async (path, flags) => {
    const handle = await open(path, flags)
    if (flags !== constants.O_RDONLY)
      handle.writev = replace(handle.writev.bind(handle) as Writev) as FileHandle['writev']
    return handle
  }
}

function errno(code: string): Error {
  return Object.assign(new Error(`${code}: write`), { code, syscall: 'write' })
}

void test('A malformed key reaches no path.', async t => {
  const { store, cleanup } = await make()
  t.after(cleanup)
  for (const text of [
    '',
    '../../etc/passwd',
    'A'.repeat(32),
    'a'.repeat(31),
    `${'a'.repeat(32)}\n`,
    '../'.repeat(11),
  ]) {
    const key = text as StorageKey
    const state: WriteState = { key, offset: 0 }
    const to = new Writable()
    await assert.rejects(store.stat(key), TypeError)
    await assert.rejects(store.delete([key]), TypeError)
    await assert.rejects(store.finish(state), TypeError)
    await assert.rejects(store.abort(state), TypeError)
    await assert.rejects(appended(store, state, Buffer.from('a')), TypeError)
    await assert.rejects(store.send(key, undefined, to, never), TypeError)
  }
})

for (const code of ['ENOSPC', 'EIO', 'EDQUOT', 'EROFS']) {
  void test(`A write that fails with ${code} makes the store unavailable and leaves the body paused.`, async t => {
    const cause = errno(code)
    const { store, directory, cleanup } = await make({
      open: writingThrough(() => () => Promise.reject(cause)),
    })
    t.after(cleanup)
    const body = new Readable({ read: () => body.push(Buffer.alloc(65_536)) })
    const { result, told } = await append(store, store.begin({}), body)
    assert.ok(result.status === 'rejected' && result.reason instanceof StoreUnavailable)
    assert.equal(result.reason.cause, cause)
    assert.deepEqual(told, [])
    assert.equal(body.destroyed, false)
    assert.equal(body.isPaused(), true)
    assert.equal(body.listenerCount('data'), 0)
    assert.deepEqual(await openDescriptors(directory), [])
  })
}

void test('An append that fails gives back what is not durable, which may be what fills the disk.', async t => {
  let writes = 0
  const replace = (writev: Writev): Writev => {
    return (...args) => (++writes > 6 ? Promise.reject(errno('ENOSPC')) : writev(...args))
  }
  const { store, directory, cleanup } = await make({ open: writingThrough(replace) })
  t.after(cleanup)
  const state = await appended(store, store.begin({}), Buffer.from('abc'))
  await assert.rejects(appended(store, state, ...Array(8).fill(Buffer.alloc(MiB))), StoreUnavailable)
  assert.ok(writes > 6)
  assert.equal((await stat(join(directory, 'uploads', state.key))).size, 3)
})

void test('A second write that fails while the first has ended does not hang.', async t => {
  let writes = 0
  const replace = (writev: Writev): Writev => {
    return (...args) => (++writes === 1 ? Promise.reject(errno('EIO')) : writev(...args))
  }
  const { store, cleanup } = await make({ open: writingThrough(replace) })
  t.after(cleanup)
  await assert.rejects(appended(store, store.begin({}), ...Array(8).fill(Buffer.alloc(MiB))), StoreUnavailable)
})

void test('A file that cannot be opened makes the store unavailable.', async t => {
  let full = false
  const { store, cleanup } = await make({
    open: (path, flags) => (full ? Promise.reject(errno('EMFILE')) : open(path, flags)),
  })
  t.after(cleanup)
  const key = await stored(store, Buffer.from('abc'))
  full = true
  await assert.rejects(appended(store, store.begin({}), Buffer.from('a')), StoreUnavailable)
  await assert.rejects(sent(store, key), StoreUnavailable)
})

void test('Short writes are completed.', async t => {
  const replace = (writev: Writev): Writev => {
    return ([first], position) => writev([(first as Uint8Array).subarray(0, 40_000)], position)
  }
  const { store, cleanup } = await make({ open: writingThrough(replace) })
  t.after(cleanup)
  const bytes = randomBytes(3 * MiB + 5)
  const chunks = Array.from({ length: 50 }, (_, index) => bytes.subarray(index * 70_000, (index + 1) * 70_000))
  const key = await store.finish(await appended(store, store.begin({}), ...chunks))
  assert.ok((await sent(store, key)).equals(bytes))
})

void test('Thirty appends at once keep to the budget and to two writes each.', async t => {
  const bufferBytes = 4 * MiB
  let held = 0
  let most = 0
  let mostWrites = 0
  const replace = (writev: Writev): Writev => {
    let writes = 0
    return async (buffers, position) => {
      mostWrites = Math.max(mostWrites, ++writes)
      const result = await writev(buffers, position)
      writes -= 1
      held -= result.bytesWritten
      return result
    }
  }
  const { store, leftovers, cleanup } = await make({ bufferBytes, open: writingThrough(replace) })
  t.after(cleanup)
  const chunk = randomBytes(16 * 1024)
  const appends = Array.from({ length: 30 }, async () => {
    const state = await store.append(store.begin({}), Readable.from(Array(128).fill(chunk)), {
      observe: bytes => {
        held += bytes.byteLength
        most = Math.max(most, held)
      },
      onDurable: async () => {},
      signal: never,
    })
    assert.equal(state.offset, 128 * chunk.byteLength)
    await store.finish(state)
  })
  await Promise.all(appends)
  assert.equal(held, 0)
  // A buffer is complete with the chunk that fills it, so each of two may be one chunk over.
  assert.ok(most <= bufferBytes + 30 * 2 * chunk.byteLength, String(most))
  assert.equal(mostWrites, 2)
  assert.deepEqual(await leftovers(), [])
})

void test('Unfinished content shorter than its durable offset is refused.', async t => {
  const { store, directory, cleanup } = await make()
  t.after(cleanup)
  const state = await appended(store, store.begin({}), Buffer.from('abc'))
  await truncate(join(directory, 'uploads', state.key), 2)
  await assert.rejects(appended(store, state, Buffer.from('d')), StoreUnavailable)
  await assert.rejects(store.finish(state), StoreUnavailable)
  await store.abort(state)
  await assert.rejects(appended(store, state, Buffer.from('d')), StoreUnavailable)
  await assert.rejects(store.finish(state), StoreUnavailable)
  assert.deepEqual(await openDescriptors(directory), [])
})

void test('A blob shorter than the range asked for sends nothing.', async t => {
  const { store, cleanup } = await make()
  t.after(cleanup)
  const key = await stored(store, Buffer.from('abc'))
  await assert.rejects(sent(store, key, { start: 0, end: 3 }), StoreUnavailable)
})

void test('A blob that is cut while it is sent destroys the destination.', async t => {
  const { store, directory, cleanup } = await make()
  t.after(cleanup)
  const key = await stored(store, randomBytes(8 * MiB))
  const to = new Writable({
    write(_chunk, _encoding, done) {
      void truncate(join(directory, 'blobs', key.slice(0, 2), key), 100).then(() => done(), done)
    },
  })
  await assert.rejects(store.send(key, undefined, to, never), StoreUnavailable)
  assert.equal(to.destroyed, true)
  assert.deepEqual(await openDescriptors(directory), [])
})

void test('A store that is opened again continues where the last one was.', async t => {
  const { store, directory, cleanup } = await make()
  t.after(cleanup)
  const key = await stored(store, Buffer.from('kept'))
  const state = await appended(store, store.begin({}), Buffer.from('abc'))
  await store.close()
  const again = await openFilesystemStore({ directory })
  assert.equal(String(await sent(again, key)), 'kept')
  const { result } = await append(again, state, bodyOf(Buffer.from('def')))
  assert.ok(result.status === 'fulfilled')
  assert.equal(String(await sent(again, await again.finish(result.value))), 'abcdef')
  await assert.rejects(sent(again, 'f'.repeat(32) as StorageKey), BlobMissing)
})

void test('A body is not read on when the signal fires during writes.', async t => {
  const { store, cleanup } = await make({ bufferBytes: 64 * 1024 })
  t.after(cleanup)
  const bytes = randomBytes(4 * MiB)
  let produced = 0
  const body = new Readable({
    read() {
      this.push(bytes.subarray(produced, (produced += 65_536)))
    },
  })
  const controller = new AbortController()
  let chunks = 0
  const abort = (): void => {
    chunks += 1
    if (chunks === 3) controller.abort()
  }
  const { seen, told, result } = await append(store, store.begin({}), body, controller.signal, abort)
  assert.equal(result.status, 'rejected')
  assert.equal(told.at(-1)?.offset, seen.byteLength)
  assert.equal(body.isPaused(), true)
  assert.equal(produced, seen.byteLength + body.readableLength)
})
