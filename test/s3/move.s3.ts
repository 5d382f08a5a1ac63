import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { purgeTrash } from '../../src/gc/purge.ts'
import type { Digest } from '../../src/oci/digest.ts'
import { parseName } from '../../src/oci/name.ts'
import type { BlobStore } from '../../src/storage/blob-store.ts'
import { openFilesystemStore } from '../../src/storage/filesystem.ts'
import type { S3Store } from '../../src/storage/s3.ts'
import { Stores } from '../../src/storage/stores.ts'
import { until } from '../support/clients.ts'
import { type Ended, berth } from '../support/command.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { askForMove, moveOf, strays, workOnMove } from '../support/moving.ts'
import { assertBytes, pushBlob as push } from '../support/push.ts'
import { received } from '../support/received.ts'
import { PUSHER, type TestRegistry, letTimePass, pushBlob, sha256, withRegistry } from '../support/registry.ts'
import { type TestServer, createDatabase, startServer } from '../support/server.ts'
import { type TestBucket, createBucket, testServers } from './support.ts'

const MiB = 1024 * 1024
const PART = 5 * MiB
const name = parseName('team/app')
const { signal } = new AbortController()

for (const server of testServers()) {
  void suite(`the move between a directory and a bucket on ${server.name}`, { timeout: 400_000 }, () => {
    let work: string
    let bucket: TestBucket
    before(async () => {
      work = await mkdtemp(join(tmpdir(), 'berth-test-move-'))
      bucket = await createBucket(server)
    })
    after(async () => {
      await bucket.remove()
      await rm(work, { recursive: true, force: true })
    })

    void suite('with the rules', () => {
      let index: TestDatabase
      let directory: BlobStore
      let s3: S3Store
      let rules: TestRegistry
      let stores: Stores
      before(async () => {
        index = await withDatabase()
        directory = await openFilesystemStore({ directory: join(work, 'rules'), bufferBytes: 8 * MiB })
        s3 = bucket.open({ partBytes: PART, uploadMemoryBytes: 4 * PART })
        stores = new Stores({ store: directory }, { store: s3, presigning: s3 })
        rules = await withRegistry(index.db, { stores })
      })
      after(async () => {
        await rules.close()
        await s3.close()
        await directory.close()
        await index.close()
      })

      test('blobs of every size go there and back, verified, and nothing else is left in either', async () => {
        const contents = [0, 1, 70_000, PART, PART + 1, 3 * PART - 1].map(size => randomBytes(size))
        const digests: Digest[] = []
        for (const bytes of contents) digests.push(await pushBlob(rules.registry, 'team/app', bytes))
        for (const [target, source] of [
          [s3, directory],
          [directory, s3],
          [s3, directory],
        ] as const) {
          await askForMove(index.db, target.name)
          assert.equal(await workOnMove({ db: index.db, stores }), 'done')
          await letTimePass(index.db)
          for (const store of stores.all) await purgeTrash(index.db, store)
          assert.deepEqual(await strays(index.db, source), { found: 0, unnamed: 0 })
          assert.deepEqual(await strays(index.db, target), { found: contents.length, unnamed: 0 })
          for (const [at, digest] of digests.entries()) {
            const blob = await rules.registry.statBlob(name, digest, PUSHER)
            assert.equal(blob.store, target.name)
            // Clients are redirected to the store that has it, or served from the one that cannot.
            const url = await rules.registry.redirectBlob(blob, 'application/octet-stream')
            assert.equal(url !== undefined, target === s3)
            const bytes = await received(to => rules.registry.sendBlob(blob, undefined, to, signal))
            assert.ok(bytes.equals(contents[at] ?? Buffer.from('none')))
          }
        }
      })

      test('when the bucket cannot be reached nothing is lost, and the next try ends it', async t => {
        const digest = await pushBlob(rules.registry, 'team/app', randomBytes(1000))
        const broken = bucket.open({ endpoint: 'http://127.0.0.1:1', attempts: 1 })
        t.after(() => broken.close())
        await askForMove(index.db, 's3')
        const without = new Stores({ store: directory }, { store: broken })
        await assert.rejects(workOnMove({ db: index.db, stores: without, leaseMs: 0 }), /S3 answered ECONNREFUSED/)
        assert.match((await moveOf(index.db)).last_failure ?? '', /ECONNREFUSED/)
        assert.equal(await workOnMove({ db: index.db, stores }), 'done')
        const blob = await rules.registry.statBlob(name, digest, PUSHER)
        assert.equal(sha256(await received(to => rules.registry.sendBlob(blob, undefined, to, signal))), digest)
      })

      test('a bucket keeps the marker of its owner', async () => {
        await s3.writeMarker('mine')
        assert.equal(await s3.readMarker(), 'mine')
        const beside = bucket.open({ prefix: 'another/' })
        assert.equal(await beside.readMarker(), undefined)
        await beside.close()
      })
    })

    void suite('with a server that is killed', () => {
      let dataDir: string
      let prefix: TestBucket
      const contents = Array.from({ length: 24 }, (_, at) => randomBytes(200_000 + at))
      before(async () => {
        dataDir = join(work, 'data')
        prefix = await createBucket(server)
      })
      after(() => prefix.remove())

      const command = async (...args: string[]): Promise<Ended> =>
        await berth(['storage', ...args], { cwd: work, env: { BERTH_DATA_DIR: dataDir } })
      const json = async (...args: string[]): Promise<unknown> => {
        const { code, stdout, stderr } = await command(...args, '--json')
        assert.equal(code, 0, stderr)
        return JSON.parse(stdout)
      }
      const progress = async () =>
        (await json('progress')) as { state: string; copiedBlobs: number; leftBlobs: number; failedBlobs: number }
      const blobsIn = async (): Promise<Record<string, number>> => {
        const stores = (await json('list')) as { name: string; blobs: number; owner: string }[]
        return Object.fromEntries(stores.map(store => [store.name, store.blobs]))
      }

      async function assertAll(url: string): Promise<void> {
        for (const bytes of contents) {
          await assertBytes(await fetch(`${url}/v2/team/app/blobs/${sha256(bytes)}`), bytes)
        }
      }

      test('a move goes on by itself where a SIGKILL ended it, online, and the way back is the same', async () => {
        const database = await createDatabase()
        const place = { dataDir, ...(database === undefined ? {} : { databaseUrl: database.url }) }
        const intoBucket = { ...prefix.settings(), BERTH_STORAGE_FILESYSTEM_DIRECTORY: join(dataDir, 'storage') }
        const intoDirectory = { ...intoBucket, BERTH_STORAGE_DRIVER: 'filesystem' }
        let running: TestServer | undefined
        try {
          running = await startServer(place)
          for (const bytes of contents.slice(0, 20)) await push(running.url, 'team/app', bytes)
          await running.stop()

          running = await startServer({ ...place, env: intoBucket })
          await assertBytes(
            await fetch(`${running.url}/v2/team/app/blobs/${sha256(contents[0] ?? '')}`),
            contents[0] ?? Buffer.alloc(0),
          )
          const dry = await command('copy', '--to', 's3', '--dry-run')
          assert.match(dry.stdout, /would move 20 blobs, .* MiB, to s3/)
          // Slow enough that the kill comes in the middle.
          const asked = await command('copy', '--to', 's3', '--rate', '400KiB', '--at-once', '2', '--detach')
          assert.equal(asked.code, 0, asked.stderr)
          assert.match((await command('copy', '--to', 's3')).stderr, /a move is under way/)
          await until('some blobs are moved', async () => (await progress()).copiedBlobs >= 3)
          const { url } = running
          await push(url, 'team/app', contents[20] ?? Buffer.alloc(0))
          const died = once(running.process, 'close')
          running.kill()
          await died
          await running.stop()

          running = await startServer({ ...place, env: intoBucket })
          const restarted = running
          await push(restarted.url, 'team/app', contents[21] ?? Buffer.alloc(0))
          await until(
            'the move is done',
            async () => {
              await assertBytes(
                await fetch(`${restarted.url}/v2/team/app/blobs/${sha256(contents[5] ?? '')}`),
                contents[5] ?? Buffer.alloc(0),
              )
              return (await progress()).state !== 'running'
            },
            120_000,
          )
          const ended = await progress()
          assert.deepEqual([ended.state, ended.leftBlobs, ended.failedBlobs], ['done', 0, 0])
          assert.deepEqual(await blobsIn(), { s3: 22, filesystem: 0 })
          await push(restarted.url, 'team/app', contents[22] ?? Buffer.alloc(0))
          await running.stop()

          running = await startServer({ ...place, env: intoDirectory })
          await push(running.url, 'team/app', contents[23] ?? Buffer.alloc(0))
          await assertAll(running.url)
          const back = await command('copy', '--to', 'filesystem')
          assert.equal(back.code, 0, back.stderr)
          assert.match(back.stdout, /^done: 23 of 23 blobs are in filesystem, .* left: 0, 0 B\n$/)
          assert.deepEqual(await blobsIn(), { filesystem: 24, s3: 0 })
          await assertAll(running.url)
          await running.stop()
        } finally {
          running?.kill()
          await database?.drop()
        }
      })
    })
  })
}
