import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readdir, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { until } from '../support/clients.ts'
import { type Ended, berth } from '../support/command.ts'
import { manifestOf, pushBlob, putManifest, sha256 } from '../support/push.ts'
import { type TestServer, startServer } from '../support/server.ts'

const NAME = 'team/app'
const LAYER = Buffer.from('a layer that is looked after')
const CONFIG = Buffer.from('{}')
const LEASE = '3s'
const DUE_LIMIT_MS = 30_000

void suite('berth gc and berth verify work through the running server', () => {
  let server: TestServer
  before(async () => {
    server = await startServer({
      env: {
        BERTH_REGISTRY_LEASE: LEASE,
        BERTH_REGISTRY_UNTAGGED_RETENTION: LEASE,
        BERTH_REGISTRY_TRASH_GRACE: '1ms',
        BERTH_REGISTRY_ALLOW_SHORT_GRACE: 'true',
        BERTH_COLLECTION_PAUSE: '0s',
        BERTH_REGISTRY_REQUIRE_BLOBS: 'false',
      },
    })
  })
  after(() => server.stop())

  const local = async (...args: string[]): Promise<Ended> =>
    await berth(args, { env: { BERTH_DATA_DIR: server.dataDir } })
  const said = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await local(...args)
    assert.equal(code, 0, `${args.join(' ')}: ${stderr}`)
    return stdout
  }
  const metric = async (name: string): Promise<number> => {
    const url = String(server.log.find(line => line['msg'] === 'listening')?.['metricsUrl'])
    const text = await (await fetch(url)).text()
    const line = text.split('\n').find(one => one.startsWith(`${name} `))
    return Number(line?.slice(name.length + 1))
  }
  const head = async (digest: string): Promise<number> =>
    (await fetch(`${server.url}/v2/${NAME}/blobs/${digest}`, { method: 'HEAD' })).status

  test('gc --dry-run shows a table with reasons, gc says what it did, and the bytes are gone', async () => {
    let digest = ''
    let table = ''
    const isDue = async (): Promise<boolean> => {
      table = await said('gc', '--dry-run')
      return table.includes(digest)
    }
    // The server's own collection, once a minute, may take what was pushed before the dry run sees it.
    await until('the dry run shows a blob whose promise is over', async () => {
      digest = await pushBlob(server.url, NAME, randomBytes(15))
      return await until('it is due', isDue, DUE_LIMIT_MS).then(
        () => true,
        () => false,
      )
    })
    assert.match(table, /^KIND +REPOSITORY +DIGEST +SIZE +SINCE +REASON\n/)
    assert.match(table, new RegExp(`^link +${NAME} +${digest} +15 .*no manifest of any repository names it`, 'm'))

    assert.match(await said('gc'), /^collection 1, finished: 0 manifests, \d links, \d blobs and 0 uploads collected, /)
    const second = JSON.parse(await said('gc', '--json')) as { run: { run: number; progress: Record<string, number> } }
    const status = JSON.parse(await said('gc', '--status', '--json')) as { queue: { trash: number } }
    assert.equal(second.run.run, 2)
    assert.equal(status.queue.trash, 0)
    assert.equal(await head(digest), 404)
    assert.ok((await metric('berth_collected_total{kind="blob"}')) >= 1)
    assert.ok((await metric('berth_freed_bytes_total')) >= 15)
    assert.ok((await metric('berth_background_runs_total{work="collection",outcome="done"}')) >= 2)
    assert.equal((await readdir(join(server.dataDir, 'storage'), { recursive: true })).filter(isKey).length, 0)
  })

  test('verify finds a file that was cut short, pulls are refused, and pushing it again repairs it', async () => {
    await pushBlob(server.url, NAME, CONFIG)
    const digest = await pushBlob(server.url, NAME, LAYER)
    assert.equal((await putManifest(server.url, NAME, 'v1', manifestOf(CONFIG, [LAYER]))).status, 201)
    const files = await readdir(join(server.dataDir, 'storage'), { recursive: true, withFileTypes: true })
    let damaged = 0
    for (const file of files.filter(entry => entry.isFile() && isKey(entry.name))) {
      const path = join(file.parentPath, file.name)
      await truncate(path, 1)
      damaged += 1
    }
    assert.ok(damaged >= 2)
    assert.match(await said('verify'), /^verification 1 goes on in the background/)
    await until('the verification is over', async () => / 1, finished: /.test(await said('verify', '--status')))
    assert.match(await said('verify', '--status'), /damaged now: [2-9]$/m)
    assert.match(await said('verify', '--damaged'), new RegExp(`^${digest} +${LAYER.byteLength} .* ${NAME}$`, 'm'))
    assert.equal(await head(digest), 404)
    assert.equal((await fetch(`${server.url}/v2/${NAME}/blobs/${digest}`)).status, 404)
    for (const bytes of [LAYER, CONFIG]) await pushBlob(server.url, NAME, bytes)
    const got = await fetch(`${server.url}/v2/${NAME}/blobs/${digest}`)
    assert.equal(sha256(new Uint8Array(await got.arrayBuffer())), digest)
    assert.doesNotMatch(await said('verify', '--damaged'), new RegExp(digest))
    assert.ok((await metric('berth_verified_blobs_total{verdict="damaged"}')) >= 2)
  })

  const isKey = (name: string): boolean => /^[0-9a-f]{32}$/.test(name.split('/').at(-1) ?? '')
})
