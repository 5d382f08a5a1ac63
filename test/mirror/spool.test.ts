import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { after, before, suite, test } from 'node:test'
import { Spool } from '../../src/mirror/spool.ts'

const never = new AbortController().signal

void suite('bytes on their way', () => {
  let directory: string
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'berth-spool-'))
  })
  after(() => rm(directory, { recursive: true }))

  async function collect(spool: Spool, start: number, end: number, signal = never): Promise<Buffer> {
    const chunks: Buffer[] = []
    for await (const chunk of spool.follow(start, end, signal)) chunks.push(chunk)
    return Buffer.concat(chunks)
  }

  void test('many follow at their own pace what comes, each from where it likes', async () => {
    const content = randomBytes(3_000_000)
    const spool = await Spool.open(directory, content.byteLength)
    const all = Array.from({ length: 20 }, (_, index) => collect(spool, index * 1_000, content.byteLength - 1))
    for (let at = 0; at < content.byteLength; at += 70_000) await spool.write(content.subarray(at, at + 70_000))
    spool.complete()
    for (const [index, bytes] of (await Promise.all(all)).entries()) {
      assert.ok(bytes.equals(content.subarray(index * 1_000)))
    }
    await spool.release()
  })

  void test('the last byte waits until the whole is known to be right', async () => {
    const spool = await Spool.open(directory, 4)
    await spool.write(Buffer.from('abcd'))
    assert.equal(String(await collect(spool, 0, 2)), 'abc')
    const last = collect(spool, 3, 3)
    assert.equal(await Promise.race([last, new Promise(resolve => setImmediate(resolve, 'waits'))]), 'waits')
    spool.complete()
    assert.equal(String(await last), 'd')
    await spool.release()
  })

  void test('a failure ends everybody who follows, and who comes after it', async () => {
    const spool = await Spool.open(directory, 10)
    await spool.write(Buffer.from('abc'))
    const following = collect(spool, 0, 9)
    const fault = new Error('broken off')
    spool.fail(fault)
    await assert.rejects(following, fault)
    await assert.rejects(collect(spool, 0, 9), fault)
    await spool.release()
  })

  void test('whoever goes away is let go, while others wait on', async () => {
    const spool = await Spool.open(directory, 10)
    const gone = new AbortController()
    const leaving = collect(spool, 0, 9, gone.signal)
    const staying = collect(spool, 0, 9)
    await spool.write(Buffer.from('abc'))
    gone.abort(new Error('gone'))
    await assert.rejects(leaving, /gone/)
    await spool.write(Buffer.from('defghij'))
    spool.complete()
    assert.equal(String(await staying), 'abcdefghij')
    await spool.release()
  })

  void test('a slow reader holds itself up, nobody else', async () => {
    const content = randomBytes(2_000_000)
    const spool = await Spool.open(directory, content.byteLength)
    await spool.write(content)
    spool.complete()
    const slow = new PassThrough({ highWaterMark: 1_000 })
    const sent = spool.send(0, content.byteLength - 1, slow, never)
    assert.ok((await collect(spool, 0, content.byteLength - 1)).equals(content))
    const received: Buffer[] = []
    slow.on('data', chunk => received.push(chunk as Buffer))
    await sent
    assert.equal(Buffer.concat(received).byteLength, content.byteLength)
    await spool.release()
  })

  void test('it has no name, so that nothing is left of it after a crash', async () => {
    const spool = await Spool.open(directory, 3)
    await spool.write(Buffer.from('abc'))
    assert.deepEqual(await readdir(directory), [])
    await spool.release()
  })

  void test('nothing at all is whole as well', async () => {
    const spool = await Spool.open(directory, 0)
    spool.complete()
    assert.equal((await collect(spool, 0, -1)).byteLength, 0)
    await spool.release()
  })
})
