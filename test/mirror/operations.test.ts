import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, afterEach, before, suite, test } from 'node:test'
import { administerOf } from '../support/access.ts'
import { RegistryClient, codeOf, digestOf } from '../support/client.ts'
import { type Ended, berth } from '../support/command.ts'
import { type TestServer, createDatabase, startServer } from '../support/server.ts'
import { type UpstreamProxy, startUpstreamProxy } from '../support/upstream-proxy.ts'

const KiB = 1024
const PASSWORD = 'the password of the upstream'

type Json = Readonly<Record<string, unknown>>

void suite('mirrors while the registry runs', () => {
  let origin: TestServer
  let upstream: RegistryClient
  let proxy: UpstreamProxy
  let server: TestServer
  let mirror: RegistryClient
  let administer: (method: string, path: string, body?: object) => Promise<Json>

  before(async () => {
    origin = await startServer()
    upstream = new RegistryClient(origin.url)
    proxy = await startUpstreamProxy(origin.url)
    const common = { url: proxy.url, allowPrivate: true, tagTtl: '1h', namespaces: [] }
    server = await startServer({
      env: {
        BERTH_MIRROR_SPARE: '0s',
        BERTH_MIRROR_UPSTREAMS: JSON.stringify({
          told: { ...common, tagTtl: '0s' },
          small: { ...common, maxBytes: '1MiB' },
          fixed: { ...common, hosts: ['fixed.example'] },
        }),
      },
    })
    mirror = new RegistryClient(server.url)
    administer = await administerOf(server)
  })
  afterEach(() => {
    proxy.whim = () => undefined
    proxy.seen.splice(0)
  })
  after(async () => {
    await server.stop()
    await proxy.close()
    await origin.stop()
  })

  const command = async (...args: string[]): Promise<Ended> =>
    await berth(['mirror', ...args], { env: { BERTH_DATA_DIR: server.dataDir } })
  const ok = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await command(...args)
    assert.equal(code, 0, stderr)
    return stdout
  }
  const refused = async (...args: string[]): Promise<string> => {
    const { code, stderr } = await command(...args)
    assert.equal(code, 1, stderr)
    return stderr
  }
  const status = async (path: string): Promise<number> => {
    const answer = await mirror.ask(path)
    await answer.arrayBuffer()
    return answer.status
  }
  const metrics = async (): Promise<string> => {
    const { metricsUrl } = server.log.find(line => line['msg'] === 'listening') ?? {}
    return await (await fetch(String(metricsUrl))).text()
  }

  void test('a mirror tells what came from here, what was fetched and what went wrong: by API, command and metrics', async () => {
    const layer = randomBytes(100_000)
    const digest = await upstream.pushBlob('library/told', layer)
    await upstream.pushImage('library/told', 'v1')
    const rate = { 'RateLimit-Limit': '100;w=21600', 'RateLimit-Remaining': '76;w=21600' }
    for (let turn = 0; turn < 3; turn += 1) {
      assert.equal(await status('/v2/told/library/told/manifests/v1'), 200)
      assert.equal(await status(`/v2/told/library/told/blobs/${digest}`), 200)
    }
    proxy.whim = () => ({ status: 429, headers: { ...rate, 'Retry-After': '60' } })
    assert.equal(await status('/v2/told/library/told/manifests/v1'), 200)
    const shown = await administer('GET', '/mirrors/told')
    const { figures, lastFailures, size } = shown as { figures: Json; lastFailures: Json[]; size: Json }
    const { manifestHits, manifestMisses, stale, blobHits, blobMisses, savedBytes, failures } = figures
    assert.deepEqual(
      { manifestHits, manifestMisses, stale, blobHits, blobMisses, savedBytes, failures },
      {
        manifestHits: 2,
        manifestMisses: 1,
        stale: 1,
        blobHits: 2,
        blobMisses: 1,
        savedBytes: 2 * layer.byteLength,
        failures: { limited: 1 },
      },
    )
    assert.ok(Number(figures['upstreamBytes']) > layer.byteLength)
    assert.ok(Number(figures['upstreamBytes']) < layer.byteLength + 10_000)
    assert.equal(lastFailures.length, 1)
    assert.match(String(lastFailures[0]?.['message']), /answered 429/)
    assert.deepEqual([size['repositories'], size['manifests']], [1, 1])
    const { limit, remaining } = shown['rate'] as Json
    assert.deepEqual([limit, remaining], [100, 76])
    assert.match(String(shown['leftAlone']), /429/)
    const text = await metrics()
    for (const line of [
      'berth_mirror_pulls_total{mirror="told",kind="manifest",outcome="hit"} 2',
      'berth_mirror_pulls_total{mirror="told",kind="manifest",outcome="stale"} 1',
      'berth_mirror_pulls_total{mirror="told",kind="blob",outcome="miss"} 1',
      `berth_mirror_saved_bytes_total{mirror="told"} ${2 * layer.byteLength}`,
      'berth_mirror_upstream_failures_total{mirror="told",kind="limited"} 1',
      'berth_mirror_rate_limit_remaining{mirror="told"} 76',
      'berth_mirror_left_alone{mirror="told"} 1',
      'berth_mirror_max_bytes{mirror="small"} 1048576',
    ]) {
      assert.ok(text.includes(`${line}\n`), `no ${line} in\n${text.match(/^berth_mirror.*$/gm)?.join('\n')}`)
    }
    assert.match(text, /^berth_mirror_upstream_request_duration_seconds_count\{mirror="told"\} [1-9]/m)
    assert.match(await ok('list'), /told .* left alone .* 76 of 100/)
    assert.match(await ok('show', 'told'), /quota left +76 of 100[^]*limited .*429/)
  })

  void test('what was counted outlives the process that counted it', async t => {
    const database = await createDatabase()
    const env = { BERTH_MIRROR_UPSTREAMS: JSON.stringify({ lasting: { url: proxy.url, allowPrivate: true } }) }
    const dataDir = join(server.dataDir, '..', 'lasting')
    const start = (): Promise<TestServer> =>
      startServer({ env, dataDir, ...(database === undefined ? {} : { databaseUrl: database.url }) })
    t.after(async () => {
      await rm(dataDir, { recursive: true, force: true })
      await database?.drop()
    })
    const first = await start()
    try {
      const { status: code } = await new RegistryClient(first.url).ask('/v2/lasting/absent/manifests/v1')
      assert.equal(code, 404)
    } finally {
      await first.stop()
    }
    const second = await start()
    try {
      const { figures } = await (await administerOf(second))('GET', '/mirrors/lasting')
      assert.deepEqual((figures as Json)['failures'], { absent: 1 })
    } finally {
      await second.stop()
    }
  })

  void test('a mirror of limited size loses what was not used for longest, and what it lost can be pulled again', async () => {
    const digests: string[] = []
    for (let each = 0; each < 6; each += 1) {
      const layer = await upstream.pushBlob('library/big', randomBytes(300 * KiB))
      digests.push(layer)
      const layers = [{ mediaType: 'application/octet-stream', digest: layer, size: 300 * KiB }]
      await upstream.pushImage('library/big', `v${each}`, { layers })
      assert.equal(await status(`/v2/small/library/big/manifests/v${each}`), 200)
      assert.equal(await status(`/v2/small/library/big/blobs/${layer}`), 200)
    }
    for (;;) {
      const { figures, size } = (await administer('GET', '/mirrors/small')) as { figures: Json; size: Json }
      const bytes = Number(size['bytes'] ?? Infinity)
      if (Number(figures['evicted']) > 0 && bytes <= 1024 * KiB) break
      await new Promise(setImmediate)
    }
    assert.equal(await status('/v2/small/library/big/manifests/v0'), 200)
    assert.equal(await status(`/v2/small/library/big/blobs/${digests[0]}`), 200)
    assert.match(await metrics(), /^berth_mirror_evicted_total\{mirror="small"\} [1-9]/m)
  })

  void test('a mirror is added, changed and removed by the command, and its secrets are never told', async () => {
    const digest = await upstream.pushImage('library/added', 'v1')
    const file = join(server.dataDir, 'password')
    await writeFile(file, `${PASSWORD}\n`)
    const path = '/v2/deep/added/library/added/manifests/v1'
    assert.equal(await status(path), 404)
    const login = ['--username', 'company', '--password-file', file]
    const rest = ['--allow-private', 'yes', '--namespace', 'added.example', '--tag-ttl', '10m', '--max-size', '1GB']
    assert.match(await ok('add', 'deep/added', '--url', proxy.url, ...login, ...rest), /is mirrored as deep\/added/)
    const answer = await mirror.ask(path)
    assert.deepEqual([answer.status, answer.headers.get('docker-content-digest')], [200, digest])
    assert.equal(await status('/v2/library/added/manifests/v1?ns=added.example'), 200)
    const shown = await administer('GET', '/mirrors/deep/added')
    assert.deepEqual(
      [shown['source'], shown['username'], shown['tagTtlSeconds'], shown['maxBytes']],
      ['api', 'company', 600, 1_000_000_000],
    )
    await ok('change', 'deep/added', '--deny', 'library/**', '--unset', 'maxBytes', '--unset', 'login')
    assert.equal(await status('/v2/deep/added/library/other/manifests/v1'), 404)
    assert.equal(proxy.seen.filter(({ path: asked }) => asked.includes('library/other')).length, 0)
    const changed = await administer('GET', '/mirrors/deep/added')
    assert.deepEqual([changed['username'], changed['maxBytes'], changed['tagTtlSeconds']], [null, null, 600])
    const put = await mirror.putManifest('deep/added/library/added', 'v2', {})
    assert.equal(put.status, 405)
    await ok('remove', 'deep/added')
    // What came is an ordinary repository now.
    assert.equal(await status(path), 200)
    assert.equal(await status('/v2/library/added/manifests/v1?ns=added.example'), 404)
    await mirror.pushImage('deep/added/library/added', 'v2')
    assert.match(await refused('add', 'deep/added', '--url', proxy.url), /library\/added is there already/)
    await ok('add', 'deep/added', '--url', proxy.url, '--over-existing')
    await ok('remove', 'deep/added')
    const audit = await berth(['audit', '--json'], { env: { BERTH_DATA_DIR: server.dataDir } })
    assert.match(audit.stdout, /mirror\.add/)
    for (const told of [audit.stdout, JSON.stringify(server.log), JSON.stringify([shown, changed])]) {
      assert.ok(!told.includes(PASSWORD))
    }
  })

  void test('mirrors of the settings cannot be changed, and nothing may get in another’s way', async () => {
    assert.match(await refused('remove', 'fixed'), /stands in the settings/)
    assert.match(await refused('change', 'fixed', '--offline', 'yes'), /stands in the settings/)
    assert.match(await refused('add', 'fixed', '--url', proxy.url), /there is a mirror fixed already/)
    assert.match(await refused('add', 'fixed/below', '--url', proxy.url), /must not contain each other/)
    assert.match(await refused('add', 'other', '--url', proxy.url, '--host', 'FIXED.example'), /hosts of mirror fixed/)
    assert.match(await refused('add', 'other', '--url', 'https://user:secret@registry.example'), /must hold no login/)
    assert.match(await refused('add', 'No Name', '--url', proxy.url), /beginning of a repository name/)
    assert.match(await refused('change', 'nowhere', '--offline', 'yes'), /no mirror nowhere/)
  })

  void test('a login goes to no other registry than the one it was meant for', async () => {
    const login = { username: 'company', password: PASSWORD }
    await administer('POST', '/mirrors', { prefix: 'moved', url: proxy.url, login })
    await assert.rejects(
      administer('PATCH', '/mirrors/moved', { url: 'https://elsewhere.example' }),
      /give the login anew/,
    )
    await administer('PATCH', '/mirrors/moved', { url: `${proxy.url}/below` })
    await administer('PATCH', '/mirrors/moved', { url: 'https://elsewhere.example', login: null })
    await administer('DELETE', '/mirrors/moved')
  })

  void test('a test of a mirror says how far it gets, and what is wrong', async () => {
    await upstream.pushImage('library/tested', 'v1')
    const works = await ok('test', 'fixed', 'library/tested')
    assert.match(works, /ok +reach[^]*ok +repository +library\/tested can be pulled/)
    assert.match(await refused('test', 'fixed', 'library/nowhere'), /FAILED +repository .*answered 404/)
    proxy.whim = () => ({ status: 401, headers: { 'WWW-Authenticate': 'Basic realm="x"' } })
    assert.match(await refused('test', 'fixed'), /wants a login[^]*FAILED +login .*does not have/)
    proxy.whim = () => ({
      status: 401,
      headers: { 'WWW-Authenticate': 'Bearer realm="https://evil.example/token",service="x"' },
    })
    assert.match(await refused('test', 'fixed'), /FAILED +login .*evil\.example/)
    proxy.whim = () => 'cut'
    assert.match(await refused('test', 'fixed'), /FAILED +reach .*did not answer/)
    assert.match(await refused('test', 'nowhere'), /no mirror nowhere/)
  })

  void test('a bandwidth holds fetches back', async () => {
    await administer('POST', '/mirrors', {
      prefix: 'slow',
      url: proxy.url,
      allowPrivate: true,
      bytesPerSecond: 512 * KiB,
    })
    const bytes = randomBytes(1024 * KiB)
    const digest = await upstream.pushBlob('library/slow', bytes)
    const began = performance.now()
    const answer = await mirror.ask(`/v2/slow/library/slow/blobs/${digest}`)
    assert.equal(digestOf(Buffer.from(await answer.arrayBuffer())), digest)
    // The first piece, and the last, are not waited for.
    assert.ok(performance.now() - began > 1_500)
    await administer('DELETE', '/mirrors/slow')
  })

  void test('a mirror that is not there is not found', async () => {
    await assert.rejects(administer('GET', '/mirrors/nowhere'), /404/)
    const answer = await mirror.ask('/v2/nowhere/library/x/manifests/v1')
    assert.deepEqual([answer.status, await codeOf(answer)], [404, 'MANIFEST_UNKNOWN'])
  })
})
