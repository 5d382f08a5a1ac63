import assert from 'node:assert/strict'
import { mkdtemp, rename, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { watchFiles } from '../src/file-watch.ts'
import { until } from './support/clients.ts'

/** Far below the limit of a condition, so that many looks fall into it. */
const LOOK_MS = 5

let directory: string
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'berth-test-watch-'))
})
after(() => rm(directory, { recursive: true, force: true }))

/** Watches a file; answers how often it changed and failed, and what ends it. `refuse` makes its reader fail. */
async function watch(name: string): Promise<{
  readonly seen: { changed: number; failed: number; refuse: boolean }
  readonly stop: () => Promise<void>
  readonly path: string
}> {
  const path = join(directory, name)
  await writeFile(path, 'first')
  const seen = { changed: 0, failed: 0, refuse: false }
  const stop = await watchFiles(
    [path],
    {
      async changed() {
        if (seen.refuse) throw new Error('not usable')
        seen.changed += 1
      },
      failed: () => (seen.failed += 1),
    },
    LOOK_MS,
  )
  return { seen, stop, path }
}

/** Waits until a watcher that was started later has seen a change, which takes it several looks. */
async function manyLooks(): Promise<void> {
  const other = await watch('other')
  for (const text of ['one', 'another', 'a third one']) {
    const before = other.seen.changed
    await writeFile(other.path, text)
    await until('the other file was seen', async () => other.seen.changed > before)
  }
  await other.stop()
}

void suite('a file that is watched', () => {
  test('is told of once when it goes away, and again when it is back', async () => {
    const { seen, stop, path } = await watch('gone')
    await rename(path, `${path}.kept`)
    await until('it is missed', async () => seen.failed > 0)
    await manyLooks()
    assert.deepEqual([seen.failed, seen.changed], [1, 0])
    await rename(`${path}.kept`, path)
    await until('it is back', async () => seen.changed > 0)
    await stop()
    assert.deepEqual([seen.failed, seen.changed], [1, 1])
  })

  test('is told of once when it cannot be used, and read when it changes again', async () => {
    const { seen, stop, path } = await watch('broken')
    seen.refuse = true
    await rename(await fresh('broken bytes'), path)
    await until('it fails', async () => seen.failed > 0)
    await manyLooks()
    assert.equal(seen.failed, 1)
    seen.refuse = false
    await rename(await fresh('good bytes'), path)
    await until('it is read', async () => seen.changed > 0)
    await stop()
  })

  test('is read when other bytes stand in it though its size and its time of change say nothing (cp --preserve, rsync)', async () => {
    const { seen, stop, path } = await watch('same')
    const { atime, mtime } = await stat(path)
    // Its time of change in full seconds, which can be set again exactly.
    await utimes(path, atime, new Date(Math.floor(mtime.getTime() / 1000) * 1000))
    await until('the time is seen', async () => seen.changed > 0)
    const before = { seen: seen.changed, stat: await stat(path) }
    await writeFile(path, 'other')
    await utimes(path, before.stat.atime, before.stat.mtime)
    const { ino, size, mtimeMs } = await stat(path)
    assert.deepEqual([ino, size, mtimeMs], [before.stat.ino, before.stat.size, before.stat.mtimeMs])
    await until('it is read', async () => seen.changed > before.seen)
    await stop()
  })
})

test('a file that is being written in place is read when it has come to rest', async () => {
  // What each look sees: the last one stays.
  const stamps = ['old', 'old', 'empty', 'half', 'whole', 'whole']
  const readAt: string[] = []
  let seen = ''
  const stop = await watchFiles(
    [],
    { changed: async () => void readAt.push(seen), failed: error => assert.fail(String(error)) },
    LOOK_MS,
    async () => {
      seen = stamps.length > 1 ? (stamps.shift() ?? '') : (stamps[0] ?? '')
      return { stamp: seen }
    },
  )
  await until('it is read', async () => readAt.length > 0)
  await stop()
  assert.deepEqual(readAt, ['whole'])
})

async function fresh(content: string): Promise<string> {
  const path = join(directory, 'new')
  await writeFile(path, content)
  return path
}
