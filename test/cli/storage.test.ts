import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, suite, test } from 'node:test'
import { type Ended, berth } from '../support/command.ts'
import { pushBlob } from '../support/push.ts'
import { type TestServer, startServer } from '../support/server.ts'

void suite('berth storage', () => {
  let server: TestServer
  before(async () => {
    server = await startServer()
    await pushBlob(server.url, 'team/app', randomBytes(3000))
  })
  after(() => server.stop())

  const storage = async (...args: string[]): Promise<Ended> =>
    await berth(['storage', ...args], { env: { BERTH_DATA_DIR: server.dataDir } })
  const said = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await storage(...args)
    assert.equal(code, 0, `${args.join(' ')}: ${stderr}`)
    return stdout
  }

  test('lists stores with what lies in them and whose they are', async () => {
    assert.match(await said('list'), /^NAME +TAKES NEW CONTENT +CONFIGURED +OWNER +BLOBS +BYTES +UPLOADS +TRASH\n/)
    assert.deepEqual(JSON.parse(await said('list', '--json')), [
      {
        name: 'filesystem',
        takesNewContent: true,
        configured: true,
        owner: 'ours',
        blobs: 1,
        bytes: 3000,
        uploads: 0,
        trash: 0,
      },
    ])
  })

  test('says how much a move would copy, moves, and tells how it went', async () => {
    assert.equal(await said('copy', '--to', 'filesystem', '--dry-run'), 'would move 0 blobs, 0 B, to filesystem\n')
    const before = await storage('progress')
    assert.match(before.stderr, /nothing was ever moved/)
    const nothing = await storage('stop')
    assert.match(nothing.stderr, /no move is under way/)
    const ended = /^done: 0 of 0 blobs are in filesystem, 0 B of 0 B; left: 0, 0 B\n$/
    assert.match(await said('copy', '--to', 'filesystem', '--rate', '10MiB', '--at-once', '2'), ended)
    assert.match(await said('progress'), ended)
    const { atOnce, bytesPerSecond } = JSON.parse(await said('progress', '--json')) as Record<string, unknown>
    assert.deepEqual([atOnce, bytesPerSecond], [2, 10 * 2 ** 20])
  })

  test('refuses a store that is not configured, and words that mean nothing', async () => {
    const unknown = await storage('copy', '--to', 's3')
    assert.equal(unknown.code, 1)
    assert.match(unknown.stderr, /there is no store s3: configured here: filesystem/)
    for (const args of [['copy'], ['copy', '--to', 'filesystem', '--rate', 'fast'], ['copy', 'filesystem'], ['move']]) {
      assert.equal((await storage(...args)).code, 64, args.join(' '))
    }
    assert.equal((await storage('copy', '--to', 'filesystem', '--at-once', '0')).code, 1)
  })

  test('adopts the stores, which the audit records', async () => {
    assert.match(await said('adopt'), /the stores are this registry’s/)
    const audit = await berth(['audit', 'list', '--kind', 'storage.adopt'], { env: { BERTH_DATA_DIR: server.dataDir } })
    assert.match(audit.stdout, /storage\.adopt/)
    assert.match(await said('list'), / ours /)
  })
})
