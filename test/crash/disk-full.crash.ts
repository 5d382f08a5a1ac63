import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { run, until } from '../support/clients.ts'
import {
  assertBytes,
  assertUnavailable,
  close,
  manifestOf,
  offsetOf,
  openUpload,
  pushBlob,
  putManifest,
  sha256,
} from '../support/push.ts'
import { type TestServer, createDatabase, startServer } from '../support/server.ts'

/** The embedded index takes some 50 MB of it. */
const DISK = '160m'
const TOO_LARGE = 200_000_000
const INDEX = process.env['BERTH_TEST_POSTGRES'] ? 'Postgres' : 'embedded index'

void test(`a full disk is 503, loses nothing, and is served again when there is room, without a restart (${INDEX})`, async t => {
  const disk = await mkdtemp(join(tmpdir(), 'berth-disk-'))
  await run('mount', ['-t', 'tmpfs', '-o', `size=${DISK}`, 'berth-test', disk])
  let server: TestServer | undefined
  const database = await createDatabase()
  try {
    server = await startServer({ dataDir: join(disk, 'data'), ...(database && { databaseUrl: database.url }) })
    const { url } = server
    const config = Buffer.from('{}')
    const layer = randomBytes(1_000_000)
    for (const bytes of [config, layer]) await pushBlob(url, 'full/a', bytes)
    const manifest = manifestOf(config, [layer])
    assert.equal((await putManifest(url, 'full/a', 'v1', manifest)).status, 201)

    const location = await openUpload(url, 'full/a')
    const large = Buffer.alloc(TOO_LARGE, 'x')
    await assertUnavailable(await close(location, sha256(large), large))
    // The rest of the disk goes as well, so that the index has no room either.
    const filler = join(disk, 'filler')
    await run('sh', ['-c', `cat /dev/zero > ${filler} 2>/dev/null || true`])
    const answers = { served: 0, refused: 0 }
    for (let count = 0; count < 40; count++) {
      const started = await fetch(`${url}/v2/full/b${count}/blobs/uploads/`, { method: 'POST' })
      if (started.status === 202) answers.served += 1
      else {
        await assertUnavailable(started)
        answers.refused += 1
      }
    }
    const still = await fetch(`${url}/v2/full/a/blobs/${sha256(layer)}`)
    if (still.status !== 200) await assertUnavailable(still)
    else await assertBytes(still, layer)

    await rm(filler)
    assert.equal((await fetch(location, { method: 'DELETE' })).status, 204)
    await until('the registry is ready', async () => (await fetch(`${url}/readyz`)).status === 200)
    const small = randomBytes(500_000)
    const again = await openUpload(url, 'full/a')
    assert.equal(await offsetOf(again), 0)
    assert.equal((await close(again, sha256(small), small)).status, 201)
    for (const bytes of [layer, small]) {
      const got = await fetch(`${url}/v2/full/a/blobs/${sha256(bytes)}`)
      await assertBytes(got, bytes)
    }
    assert.equal(await (await fetch(`${url}/v2/full/a/manifests/v1`)).text(), manifest)
    t.diagnostic(`with no room at all: ${answers.served} requests served, ${answers.refused} refused with 503`)
    await server.stop()
  } finally {
    server?.kill()
    await database?.drop()
    await run('umount', ['--lazy', disk])
    await rm(disk, { recursive: true, force: true })
  }
})
