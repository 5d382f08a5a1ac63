import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { promisify } from 'node:util'
import { type AccessServer, PASSWORD, basic, fetchToken, startAccessServer } from '../support/access.ts'
import { until } from '../support/clients.ts'
import { BERTH } from '../support/command.ts'
import { createDatabase } from '../support/server.ts'

const UPSTREAM_PASSWORD = 'the password of an upstream'
const TYPED_WRONG = 'what somebody typed'

/** Command lines and names of a process and of all that descend from it. */
async function processesOf(root: number): Promise<string[]> {
  const { stdout } = await promisify(execFile)('ps', ['-A', '-ww', '-o', 'pid=,ppid=,comm=,args='])
  const all = stdout.split('\n').map(line => {
    const [pid, parent, ...words] = line.trim().split(/\s+/)
    return { pid: Number(pid), parent: Number(parent), text: words.join(' ') }
  })
  const pids = [root]
  for (const pid of pids) pids.push(...all.filter(({ parent }) => parent === pid).map(child => child.pid))
  return all.filter(({ pid }) => pids.includes(pid)).map(({ text }) => text)
}

test('no secret of the settings is printed or seen among the processes (CVE-2025-48374, GHSA-c37v-3c8w-crq8; CWE-214)', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'berth-test-secrets-'))
  const database = await createDatabase()
  const others = Object.entries(process.env).filter(([name]) => !/^(?:BERTH_|NODE_TEST)/.test(name))
  const child = spawn(process.execPath, [BERTH, 'serve'], {
    cwd: directory,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...Object.fromEntries(others),
      BERTH_HTTP_PORT: '0',
      BERTH_METRICS_PORT: '0',
      BERTH_LOG_FORMAT: 'json',
      BERTH_LOG_LEVEL: 'debug',
      BERTH_DATA_DIR: join(directory, 'data'),
      BERTH_AUTH_MODE: 'token',
      BERTH_AUTH_ADMIN_PASSWORD: PASSWORD,
      BERTH_MIRROR_UPSTREAMS: JSON.stringify({
        hub: { url: 'https://registry.invalid', username: 'us', password: UPSTREAM_PASSWORD },
      }),
      ...(database === undefined ? {} : { BERTH_DATABASE_URL: database.url }),
    },
  })
  try {
    let printed = ''
    const ended = once(child, 'close')
    const listens = Promise.withResolvers<string>()
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        printed += text
        const url = /"url":"(http:[^"]+)"[^\n]*"msg":"listening"|"msg":"listening"[^\n]*"url":"(http:[^"]+)"/.exec(
          printed,
        )
        if (url !== null) listens.resolve(url[1] ?? url[2] ?? '')
      })
    }
    child.once('exit', () => listens.reject(new Error(printed)))
    const url = await listens.promise
    const token = await fetchToken(url, ['repository:team/app:pull'], basic('admin', PASSWORD))
    const wrong = await fetch(`${url}/token`, { headers: { Authorization: basic('admin', TYPED_WRONG) } })
    assert.equal(wrong.status, 401)
    const made = await fetch(`${url}/api/v1/tokens`, {
      method: 'POST',
      headers: { Authorization: basic('admin', PASSWORD), 'Content-Type': 'application/json' },
      body: JSON.stringify({ name: 'laptop' }),
    })
    const { secret } = (await made.json()) as { secret: string }
    assert.equal(made.status, 201)
    for (const path of ['/v2/_catalog', '/v2/hub/library/alpine/tags/list']) {
      await (await fetch(`${url}${path}`, { headers: { Authorization: `Bearer ${token}` } })).text()
    }
    const processes = await processesOf(child.pid ?? 0)
    assert.match(processes.join('\n'), /serve/)
    child.kill('SIGTERM')
    assert.deepEqual(await ended, [0, null])
    const secrets = [PASSWORD, UPSTREAM_PASSWORD, TYPED_WRONG, token, secret]
    const shapes = secrets.flatMap(text => [text, encodeURIComponent(text), Buffer.from(text).toString('base64')])
    for (const text of [printed, processes.join('\n')]) {
      assert.ok(text !== '')
      for (const shape of shapes) assert.ok(!text.includes(shape), `${shape} in ${text}`)
    }
  } finally {
    child.kill('SIGKILL')
    await database?.drop()
    await rm(directory, { recursive: true, force: true })
  }
})

void suite('what was found in other registries', () => {
  let server: AccessServer

  before(async () => {
    server = await startAccessServer()
    await server.administer('POST', '/grants', {
      subject: { kind: 'anonymous' },
      pattern: 'public/**',
      actions: ['pull'],
    })
  })
  after(() => server.stop())

  const administer = async (path: string): Promise<string> => {
    const answer = await fetch(`${server.url}/api/v1${path}`, {
      headers: { Authorization: basic('admin', PASSWORD) },
    })
    assert.equal(answer.status, 200)
    return await answer.text()
  }

  test('no path leads a client elsewhere: an open redirect (CWE-601)', async () => {
    for (const path of [
      '//evil.example',
      '//evil.example/v2/',
      '/\\evil.example',
      '/v2//evil.example/',
      '/v2',
      '/token/',
      '/?next=//evil.example',
      '/v2/?redirect_uri=https://evil.example',
    ]) {
      for (const method of ['GET', 'POST']) {
        const { status, headers } = await fetch(`${server.url}${path}`, { method, redirect: 'manual' })
        assert.ok(status < 300 || status >= 400, `${method} ${path}: ${status}`)
        assert.equal(headers.get('location'), null)
      }
    }
  })

  test('a secret is shown when it is made and in no list, no description and no audit (quay/quay #6740)', async () => {
    const robot = { name: 'ci', grants: [{ pattern: 'team/**', actions: ['pull'] }] }
    const { secret } = await server.administer('POST', '/robots', robot)
    const personal = await server.administer('POST', '/tokens', { user: 'admin', name: 'laptop' })
    const paths = ['/robots', '/tokens', '/users', '/keys', '/audit', '/grants']
    const said = (await Promise.all(paths.map(administer))).join('\n')
    assert.match(said, /robot\+ci/)
    for (const text of [String(secret), String(personal['secret']), PASSWORD]) assert.ok(!said.includes(text))
    assert.doesNotMatch(said, /hash|"d":|privateJwk/i)
  })

  test('what a stranger sends makes no entry of the audit long (goharbor/harbor #23755)', async () => {
    const long = 'x'.repeat(5_000)
    const query = new URLSearchParams([
      ['scope', `repository:team/${long}:pull`],
      ['account', long],
      ['client_id', long],
    ])
    for (const name of ['n'.repeat(255), long]) {
      const answer = await fetch(`${server.url}/token?${query.toString()}`, {
        headers: { Authorization: basic(name, 'not the password'), 'X-Request-Id': long, 'User-Agent': long },
      })
      assert.equal(answer.status, 401)
    }
    const entries = async (): Promise<readonly object[]> =>
      (JSON.parse(await administer('/audit?kind=login&limit=100')) as { items: object[] }).items
    await until('the audit has an entry', async () => (await entries()).length > 0)
    for (const entry of await entries()) assert.ok(JSON.stringify(entry).length < 1_000)
  })

  test('what is public and what is not are pulled in one session (project-zot/zot #2928, #4173)', async () => {
    const image = { schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests: [] }
    for (const name of ['public/app', 'team/app']) {
      const put = await fetch(`${server.url}/v2/${name}/manifests/1`, {
        method: 'PUT',
        headers: { Authorization: basic('admin', PASSWORD), 'Content-Type': image.mediaType },
        body: JSON.stringify(image),
      })
      assert.equal(put.status, 201)
    }
    /** As clients do it: the ping's challenge says where to get a token; each repository's 401 says for what. */
    const pull = async (name: string, credentials?: string): Promise<number> => {
      const path = `${server.url}/v2/${name}/manifests/1`
      const ping = await fetch(`${server.url}/v2/`)
      assert.equal(ping.status, 401)
      const challenge = (await fetch(path)).headers.get('www-authenticate') ?? ''
      const scope = /scope="([^"]+)"/.exec(challenge)?.[1] ?? ''
      const token = await fetchToken(server.url, [scope], credentials)
      return (await fetch(path, { headers: { Authorization: `Bearer ${token}` } })).status
    }
    const admin = basic('admin', PASSWORD)
    const seen = [
      await pull('public/app'),
      await pull('team/app'),
      await pull('public/app'),
      await pull('team/app', admin),
    ]
    assert.deepEqual(seen, [200, 401, 200, 200])
    // One token for both, as containerd asks for a mount: the public one opens though nobody logged in.
    const both = await fetchToken(server.url, ['repository:public/app:pull', 'repository:team/app:pull'])
    const open = async (name: string): Promise<number> =>
      (await fetch(`${server.url}/v2/${name}/manifests/1`, { headers: { Authorization: `Bearer ${both}` } })).status
    assert.deepEqual([await open('public/app'), await open('team/app')], [200, 401])
  })
})
