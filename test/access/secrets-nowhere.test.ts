import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { promisify } from 'node:util'
import bcrypt from 'bcrypt'
import { makeSecret } from '../../src/auth/secrets.ts'
import { type AccessServer, PASSWORD, basic, fetchToken, startAccessServer } from '../support/access.ts'
import { type TestIssuer, startIssuer } from '../support/issuer.ts'
import { until } from '../support/clients.ts'
import { startServer } from '../support/server.ts'

const TEXT_OF_ADMIN = `${PASSWORD} of the administrator`
const TEXT_OF_USER = `${PASSWORD} of a user`

/** Every kind of secret that a registry makes or takes. */
const KINDS = [
  'the password of the first administrator',
  'a password that somebody chose',
  'a password that was generated',
  'the hash of a password in an htpasswd file',
  'a personal access token',
  'the secret of a robot',
  'a secret that was rotated away',
  'a token that nobody has',
  'a refresh token',
  'an access token',
  'an identity token of a CI job',
  'the capability to go on with an upload',
] as const
type Kind = (typeof KINDS)[number]

/** What is known for a secret wherever it stands: one of ours, or a JWT. */
const HAS_FORM = /^berth_|^eyJ/

type Init = Omit<RequestInit, 'headers'> & { readonly headers?: Readonly<Record<string, string>> }

/** What an answer said, in its head and its body. */
interface Said {
  readonly status: number
  readonly head: string
  readonly body: string
}

void suite('no secret is told to anybody but its owner (OWASP ASVS 5.0 sections 14.2.1 and 16.2.5, CWE-532)', () => {
  let directory: string
  let issuer: TestIssuer
  let server: AccessServer
  let secrets: Readonly<Record<Kind, string>>
  let written = ''

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'berth-test-secrets-'))
    issuer = await startIssuer()
    const hash = await bcrypt.hash(PASSWORD, 4)
    const [htpasswd, admin] = ['htpasswd', 'admin-password'].map(name => join(directory, name)) as [string, string]
    await writeFile(htpasswd, `helen:${hash}\n`)
    await writeFile(admin, TEXT_OF_ADMIN)
    server = await startAccessServer({
      BERTH_AUTH_ADMIN_PASSWORD: '',
      BERTH_AUTH_ADMIN_PASSWORD_FILE: admin,
      BERTH_AUTH_HTPASSWD: htpasswd,
      BERTH_AUTH_ALLOW_PRIVATE_ISSUERS: 'true',
      BERTH_AUTH_GUESSES_PER_ACCOUNT: '10000',
      BERTH_AUTH_GUESSES_PER_ADDRESS: '100000',
      BERTH_LOG_LEVEL: 'trace',
    })
    for (const stream of [server.process.stdout, server.process.stderr]) {
      stream?.on('data', (chunk: Buffer | string) => (written += String(chunk)))
    }
    secrets = await makeSecrets(hash)
  })
  after(async () => {
    await server?.stop()
    await issuer?.close()
    await rm(directory, { recursive: true, force: true })
  })

  async function makeSecrets(hash: string): Promise<Readonly<Record<Kind, string>>> {
    const { administer, url } = server
    const text = (answer: Record<string, unknown>, name = 'secret'): string => String(answer[name])
    await administer('POST', '/users', { name: 'alice', password: TEXT_OF_USER })
    const generated = await administer('POST', '/users', { name: 'gerda' })
    const grants = [{ pattern: 'team/**', actions: ['push'] }]
    const robot = await administer('POST', '/robots', { name: 'farm', grants })
    const former = await administer('POST', '/robots', { name: 'former', grants })
    await administer('POST', '/robots/former/secrets', { overlapSeconds: 0 })
    await administer('POST', '/trust-rules', {
      name: 'job',
      issuer: issuer.url,
      audience: 'registry.example',
      claims: { project_id: 1 },
      grants,
    })
    const identityToken = issuer.sign({ aud: 'registry.example', project_id: 1 })
    const session = await fetch(`${url}/token?offline_token=true`, {
      headers: { Authorization: basic('job', identityToken) },
    })
    const accessToken = await fetchToken(url, ['repository:team/app:pull,push'], basic('robot+farm', text(robot)))
    const upload = await fetch(`${url}/v2/team/app/blobs/uploads/`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${accessToken}` },
    })
    const capability = new URL(upload.headers.get('location') ?? '', url).searchParams.get('grant')
    return {
      'the password of the first administrator': TEXT_OF_ADMIN,
      'a password that somebody chose': TEXT_OF_USER,
      'a password that was generated': text(generated, 'generatedPassword'),
      'the hash of a password in an htpasswd file': hash,
      'a personal access token': text(await administer('POST', '/tokens', { user: 'alice', name: 'laptop' })),
      'the secret of a robot': text(robot),
      'a secret that was rotated away': text(former),
      'a token that nobody has': makeSecret('pat').text,
      'a refresh token': text((await session.json()) as Record<string, unknown>, 'refresh_token'),
      'an access token': accessToken,
      'an identity token of a CI job': identityToken,
      'the capability to go on with an upload': capability ?? '',
    }
  }

  const ask = async (path: string, init: Init = {}): Promise<Said> => {
    const response = await fetch(`${server.url}${path}`, { ...init, redirect: 'manual' })
    const head = [...response.headers].map(([name, value]) => `${name}: ${value}`).join('\n')
    return { status: response.status, head, body: await response.text() }
  }
  const showing = async (path: string, authorization: string, init: Init = {}): Promise<Said> =>
    await ask(path, { ...init, headers: { ...init.headers, Authorization: authorization } })
  const form = async (fields: Readonly<Record<string, string>>): Promise<Said> =>
    await ask('/token', { method: 'POST', body: new URLSearchParams(fields) })
  const send = async (authorization: string, path: string, body: object): Promise<Said> =>
    await showing(path, authorization, {
      method: path.endsWith('/password') ? 'PUT' : 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(body),
    })

  /** Everywhere that somebody shows a secret, also where it does not belong. Answers what was said to it. */
  async function showEverywhere(secret: string): Promise<Said[]> {
    const query = encodeURIComponent(secret)
    const admin = basic('admin', TEXT_OF_ADMIN)
    return [
      await showing('/token?scope=repository:team/app:pull', basic('alice', secret)),
      await showing('/token', basic('helen', secret)),
      await showing('/token', basic('nobody', secret)),
      await showing('/token', basic('', secret)),
      // Where GitHub takes tokens. What has no form of its own cannot be told from a name.
      ...(HAS_FORM.test(secret) ? [await showing('/token', basic(secret, 'x-oauth-basic'))] : []),
      await showing('/token', `Digest ${query}`),
      await showing('/v2/', basic('alice', secret)),
      await showing('/v2/', `Bearer ${query}`),
      await showing('/v2/team/app/manifests/latest', `Bearer ${query}`),
      await showing('/api/v1/users', `Bearer ${query}`),
      await showing('/api/v1/users', basic('alice', secret)),
      await form({ grant_type: 'password', username: 'alice', password: secret }),
      await form({ grant_type: 'refresh_token', refresh_token: `${secret}x` }),
      await form({ grant_type: secret }),
      await ask(`/token?account=alice&password=${query}`),
      await ask(`/v2/?access_token=${query}`),
      await ask(`/v2/team/app/blobs/uploads/00000000-0000-4000-8000-000000000000?grant=${query}`, { method: 'PATCH' }),
      await showing(`/api/v1/users?password=${query}`, admin),
      await send(admin, '/api/v1/users', { name: 'new', password: secret, current: secret }),
      await send(admin, '/api/v1/users', { name: 'new', password: [secret] }),
      await send(basic('gerda', secrets['a password that was generated']), '/api/v1/users/gerda/password', {
        password: 'another password of gerda',
        current: `${secret}x`,
      }),
    ]
  }

  for (const kind of KINDS) {
    test(`${kind}: in no log, error, address, audit entry, metric or title of a process`, async () => {
      const secret = secrets[kind]
      assert.ok(secret.length >= 12, 'there is one')
      const said = await showEverywhere(secret)
      // What is right by itself may be answered; everything that is refused, and every address, must not repeat it.
      for (const { status, head, body } of said) {
        assert.ok(!head.includes(secret) && !head.includes(encodeURIComponent(secret)), head)
        if (status >= 400) assert.ok(!body.includes(secret), body)
      }
      assert.ok(said.filter(({ status }) => status >= 400).length > said.length / 2)

      // What was refused is recorded a moment later, in the order in which it came.
      const last = `last-${KINDS.indexOf(kind)}`
      assert.equal((await showing('/token', basic(last, 'x'))).status, 401)
      await until('all is recorded', async () => {
        const { items } = await server.administer('GET', `/audit?actor=${last}`)
        return (items as unknown[]).length > 0
      })
      const audit = JSON.stringify(await server.administer('GET', '/audit?limit=1000'))
      assert.ok(!audit.includes(secret), 'the audit')

      const metricsUrl = server.log.find(line => line['msg'] === 'listening')?.['metricsUrl']
      const metrics = await (await fetch(String(metricsUrl))).text()
      assert.match(metrics, /^berth_/m)
      assert.ok(!metrics.includes(secret), 'the metrics')

      const { stdout: processes } = await promisify(execFile)('ps', ['-A', '-o', 'args='], { maxBuffer: 2 ** 26 })
      assert.ok(processes.includes('serve'))
      assert.ok(!processes.includes(secret), 'the titles of processes')
    })
  }

  test('what was written by the process from its start to its end has none of them', async () => {
    const ended = once(server.process, 'close')
    server.process.kill('SIGTERM')
    await ended
    assert.ok(server.log.length > KINDS.length * 10)
    const all = `${JSON.stringify(server.log)}\n${written}`
    for (const kind of KINDS) {
      assert.ok(!all.includes(secrets[kind]) && !all.includes(encodeURIComponent(secrets[kind])), kind)
    }
    assert.doesNotMatch(all, /berth_(?:pat|rob|ref)_[A-Za-z0-9_-]{32}|eyJ[A-Za-z0-9_-]{20}|PRIVATE KEY/)
  })
})

void suite('a start that fails', () => {
  const secret = 'hunter2-of-the-settings'
  const TOO_SHORT = 'hunter2-of-'
  const s3 = { BERTH_STORAGE_DRIVER: 's3', BERTH_STORAGE_S3_SECRET_ACCESS_KEY: secret }
  const faults: Readonly<Record<string, readonly [env: Readonly<Record<string, string>>, says: RegExp]>> = {
    'the password of the index, where it is not there': [
      { BERTH_DATABASE_URL: `postgres://u:${secret}@127.0.0.1:1/db` },
      /the index cannot be reached/,
    ],
    'the password of the index, where its address is none': [
      { BERTH_DATABASE_URL: `mysql://u:${secret}@127.0.0.1/db` },
      /database\.url: must start with postgres/,
    ],
    'the password of the administrator, where it is too short': [
      { BERTH_AUTH_ADMIN_PASSWORD: TOO_SHORT },
      /at least 12 characters/,
    ],
    'the secret of a bucket, where others are missing': [s3, /storage\.s3\.bucket/],
    'the secret of a bucket, where it stands in the address': [
      {
        ...s3,
        BERTH_STORAGE_S3_BUCKET: 'bucket',
        BERTH_STORAGE_S3_REGION: 'here',
        BERTH_STORAGE_S3_ACCESS_KEY_ID: 'key',
        BERTH_STORAGE_S3_ENDPOINT: `http://u:${secret}@127.0.0.1:1`,
      },
      /storage\.s3\.endpoint: must hold no user/,
    ],
  }
  for (const [what, [env, says]] of Object.entries(faults)) {
    test(`does not tell ${what} (CWE-209)`, async () => {
      const failure = startServer({ env: { BERTH_AUTH_MODE: 'token', ...env } })
      await assert.rejects(failure, (error: Error) => {
        assert.match(error.message, says)
        for (const text of [secret, TOO_SHORT]) assert.ok(!error.message.includes(text), error.message)
        return true
      })
    })
  }
})
