import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { appendFile, mkdtemp, readdir, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { followFile, identityOf } from '../../src/mirror/shared-directory.ts'
import { Spool, removeLeftovers } from '../../src/mirror/spool.ts'

const never = new AbortController().signal

void suite('a directory that processes share', () => {
  let directory: string
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'berth-shared-'))
  })
  after(() => rm(directory, { recursive: true }))

  void test('everyone who opens it reads one identity, and another directory has another', async () => {
    const place = await mkdtemp(join(directory, 'identity-'))
    const read = await Promise.all(Array.from({ length: 20 }, () => identityOf(place)))
    assert.equal(new Set(read).size, 1)
    assert.equal(await identityOf(place), read[0])
    assert.deepEqual(await readdir(place), ['identity'])
    assert.notEqual(await identityOf(await mkdtemp(join(directory, 'identity-'))), read[0])
  })

  void test('a file is followed from any byte while it grows', async () => {
    const content = randomBytes(700_000)
    const path = join(directory, 'growing')
    await writeFile(path, content.subarray(0, 100))
    const body = await followFile(path, 50, content.byteLength, async () => true, never)
    assert.ok(body !== undefined)
    const chunks: Buffer[] = []
    const read = (async () => {
      for await (const chunk of body) chunks.push(chunk as Buffer)
    })()
    for (let at = 100; at < content.byteLength; at += 90_000) await appendFile(path, content.subarray(at, at + 90_000))
    await read
    assert.ok(Buffer.concat(chunks).equals(content.subarray(50)))
  })

  void test('a file that grows no more ends as broken once its writer is gone', async () => {
    const path = join(directory, 'abandoned')
    await writeFile(path, 'abc')
    const body = await followFile(path, 0, 10, async () => false, never)
    assert.ok(body !== undefined)
    const chunks: Buffer[] = []
    await assert.rejects(async () => {
      for await (const chunk of body) chunks.push(chunk as Buffer)
    }, /is gone/)
    assert.equal(Buffer.concat(chunks).toString(), 'abc')
  })

  void test('a file that is not there is told as such', async () => {
    assert.equal(await followFile(join(directory, 'none'), 0, 10, async () => true, never), undefined)
  })

  void test('files of dead processes are removed, those of living ones, young ones and what is no such file are not', async () => {
    const place = await mkdtemp(join(directory, 'leftovers-'))
    const named = await Promise.all(Array.from({ length: 3 }, () => Spool.open(place, 3, true)))
    const [dead = '', living = '', young = ''] = named.map(spool => spool.name)
    await identityOf(place)
    const old = new Date(Date.now() - 7_200_000)
    for (const name of [dead, living, 'identity']) await utimes(join(place, name), old, old)
    assert.equal(await removeLeftovers(place, new Set([living]), 3_600_000), 1)
    assert.deepEqual((await readdir(place)).toSorted(), ['identity', living, young].toSorted())
    for (const spool of named) await spool.release()
    assert.deepEqual(await readdir(place), ['identity'])
  })
})
