import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { after, before, suite, test } from 'node:test'
import { type AccessServer, PASSWORD, basic, fetchToken, startAccessServer } from '../support/access.ts'

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
const CONFIG = '{}'
const sha256 = (text: string): string => `sha256:${createHash('sha256').update(text).digest('hex')}`
const CONFIG_DIGEST = sha256(CONFIG)
const IMAGE = JSON.stringify({
  schemaVersion: 2,
  mediaType: MANIFEST,
  config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: CONFIG_DIGEST, size: 2 },
  layers: [],
})

const REPOSITORIES = ['public/app', 'team/app', 'other/app'] as const
type Repository = (typeof REPOSITORIES)[number]
type Action = 'pull' | 'push' | 'delete'

/** What each kind of principal may, by repository: nothing where it is not named. */
const MAY: Readonly<Record<string, Partial<Record<Repository, readonly Action[]>>>> = {
  anonymous: { 'public/app': ['pull'] },
  'user without grants': { 'public/app': ['pull'] },
  'user who may pull': { 'public/app': ['pull'], 'team/app': ['pull'] },
  'user who may push': { 'public/app': ['pull'], 'team/app': ['pull', 'push'] },
  'user who may delete': { 'public/app': ['pull'], 'team/app': ['pull', 'delete'] },
  'member of a group': { 'public/app': ['pull'], 'team/app': ['pull', 'push', 'delete'] },
  robot: { 'team/app': ['pull', 'push'], 'public/app': ['pull'] },
  'narrowed token of one who may push': { 'team/app': ['pull'] },
  'administrator of a team': { 'public/app': ['pull'], 'team/app': ['pull', 'push', 'delete'] },
  administrator: {
    'public/app': ['pull', 'push', 'delete'],
    'team/app': ['pull', 'push', 'delete'],
    'other/app': ['pull', 'push', 'delete'],
  },
}

interface Call {
  readonly what: string
  readonly action: Action
  readonly method: string
  readonly path: (repository: string) => string
  readonly body?: string
  readonly allowed: number
}

/** Deleting what is not there answers 404 to who may: so nothing is used up. */
const ABSENT = `sha256:${'0'.repeat(64)}`
const CALLS: readonly Call[] = [
  { what: 'manifest GET', action: 'pull', method: 'GET', path: name => `/v2/${name}/manifests/1`, allowed: 200 },
  { what: 'manifest HEAD', action: 'pull', method: 'HEAD', path: name => `/v2/${name}/manifests/1`, allowed: 200 },
  { what: 'blob GET', action: 'pull', method: 'GET', path: name => `/v2/${name}/blobs/${CONFIG_DIGEST}`, allowed: 200 },
  { what: 'tags', action: 'pull', method: 'GET', path: name => `/v2/${name}/tags/list`, allowed: 200 },
  { what: 'referrers', action: 'pull', method: 'GET', path: name => `/v2/${name}/referrers/${ABSENT}`, allowed: 200 },
  { what: 'upload POST', action: 'push', method: 'POST', path: name => `/v2/${name}/blobs/uploads/`, allowed: 202 },
  {
    what: 'manifest PUT',
    action: 'push',
    method: 'PUT',
    path: name => `/v2/${name}/manifests/1`,
    body: IMAGE,
    allowed: 201,
  },
  { what: 'tag DELETE', action: 'delete', method: 'DELETE', path: name => `/v2/${name}/manifests/none`, allowed: 404 },
  {
    what: 'blob DELETE',
    action: 'delete',
    method: 'DELETE',
    path: name => `/v2/${name}/blobs/${ABSENT}`,
    allowed: 404,
  },
]

void suite('who may do what, by token and by password', () => {
  let server: AccessServer
  const credentials = new Map<string, string | undefined>([['anonymous', undefined]])

  before(async () => {
    server = await startAccessServer()
    const { administer } = server
    const principal = (name: string): object => ({ kind: 'principal', name })
    const grant = async (subject: object, pattern: string, actions: readonly string[]): Promise<unknown> =>
      await administer('POST', '/grants', { subject, pattern, actions })
    const user = async (kind: string, name: string, actions: readonly string[] = []): Promise<void> => {
      await administer('POST', '/users', { name, password: PASSWORD })
      if (actions.length > 0) await grant(principal(name), 'team/**', actions)
      credentials.set(kind, basic(name, PASSWORD))
    }
    await grant({ kind: 'anonymous' }, 'public/**', ['pull'])
    await user('user without grants', 'nobody')
    await user('user who may pull', 'puller', ['pull'])
    await user('user who may push', 'pusher', ['push'])
    await user('user who may delete', 'deleter', ['pull', 'delete'])
    await user('member of a group', 'member')
    await administer('POST', '/groups', { name: 'builders' })
    await administer('PUT', '/groups/builders/members/member')
    await grant({ kind: 'group', name: 'builders' }, 'team/*', ['push', 'delete'])
    await user('administrator of a team', 'lead', ['admin'])
    credentials.set('administrator', basic('admin', PASSWORD))
    const robot = { name: 'ci.team', grants: [{ pattern: 'team/app', actions: ['pull', 'push'] }] }
    const { name, secret } = await administer('POST', '/robots', robot)
    credentials.set('robot', basic(String(name), String(secret)))
    const narrow = { user: 'pusher', name: 'narrow', scopes: [{ pattern: 'team/app', actions: ['pull'] }] }
    const { secret: token } = await administer('POST', '/tokens', narrow)
    credentials.set('narrowed token of one who may push', basic('pusher', String(token)))
    for (const repository of REPOSITORIES) {
      const as = { Authorization: basic('admin', PASSWORD) }
      const start = await fetch(`${server.url}/v2/${repository}/blobs/uploads/?digest=${CONFIG_DIGEST}`, {
        method: 'POST',
        headers: as,
        body: CONFIG,
      })
      assert.equal(start.status, 201)
      const put = await fetch(`${server.url}/v2/${repository}/manifests/1`, {
        method: 'PUT',
        headers: { ...as, 'Content-Type': MANIFEST },
        body: IMAGE,
      })
      assert.equal(put.status, 201)
    }
  })
  after(() => server.stop())

  test('the table has at least 200 rows', () => {
    assert.ok(Object.keys(MAY).length * REPOSITORIES.length * CALLS.length >= 200)
  })

  for (const [kind, may] of Object.entries(MAY)) {
    for (const repository of REPOSITORIES) {
      for (const call of CALLS) {
        const isAllowed = may[repository]?.includes(call.action) ?? false
        const expected = isAllowed ? call.allowed : 401
        test(`${kind}: ${call.what} of ${repository} is ${expected}`, async () => {
          const shown = credentials.get(kind)
          const scope = `repository:${repository}:${call.action === 'push' ? 'pull,push' : call.action}`
          const ask = async (authorization: string | undefined): Promise<Response> =>
            await fetch(`${server.url}${call.path(repository)}`, {
              method: call.method,
              headers: {
                ...(authorization === undefined ? {} : { Authorization: authorization }),
                ...(call.body === undefined ? {} : { 'Content-Type': MANIFEST }),
              },
              ...(call.body === undefined ? {} : { body: call.body }),
            })
          const byToken = await ask(`Bearer ${await fetchToken(server.url, [scope], shown)}`)
          await byToken.arrayBuffer()
          assert.equal(byToken.status, expected)
          if (!isAllowed) {
            const challenge = byToken.headers.get('www-authenticate') ?? ''
            const told = /,error_description="(?:log in to|\S+ may not) (\w+) here"$/
            assert.equal(
              challenge.replace(told, ''),
              `Bearer realm="${server.url}/token",service="berth",scope="${scope}",error="insufficient_scope"`,
            )
            assert.equal(told.exec(challenge)?.[1], call.action)
          }
          if (shown === undefined) return
          const byPassword = await ask(shown)
          await byPassword.arrayBuffer()
          assert.equal(byPassword.status, expected)
        })
      }
    }
  }

  test('without anything shown the answer is one challenge without an error, on /v2/ always (RFC 6750 section 3)', async () => {
    for (const path of ['/v2/', '/v2/public/app/manifests/1', '/v2/other/app/manifests/1', '/v2/absent/tags/list']) {
      const response = await fetch(`${server.url}${path}`)
      const challenge = response.headers.get('www-authenticate') ?? ''
      assert.equal(response.status, 401, path)
      assert.match(challenge, /^Bearer realm="[^"]*\/token",service="berth"(,scope="[^"]*")?$/)
    }
  })

  test('the catalog shows a caller only what it may pull, page by page', async () => {
    const seen = async (kind: string): Promise<string[]> => {
      const token = await fetchToken(server.url, ['registry:catalog:*'], credentials.get(kind))
      const names: string[] = []
      let path: string | undefined = '/v2/_catalog?n=1'
      while (path !== undefined) {
        const response: Response = await fetch(`${server.url}${path}`, {
          headers: { Authorization: `Bearer ${token}` },
        })
        names.push(...((await response.json()) as { repositories: string[] }).repositories)
        path = /^<([^>]+)>/.exec(response.headers.get('link') ?? '')?.[1]
      }
      return names
    }
    assert.deepEqual(await seen('anonymous'), ['public/app'])
    assert.deepEqual(await seen('user who may pull'), ['public/app', 'team/app'])
    assert.deepEqual(await seen('narrowed token of one who may push'), ['team/app'])
    assert.deepEqual(await seen('administrator'), ['other/app', 'public/app', 'team/app'])
  })

  test('a blob is mounted only from where the caller may pull, and nothing tells whether it is there', async () => {
    const mount = async (query: string): Promise<[number, string | null]> => {
      const response = await fetch(`${server.url}/v2/team/fresh/blobs/uploads/?${query}`, {
        method: 'POST',
        headers: { Authorization: credentials.get('user who may push') ?? '' },
      })
      return [response.status, response.headers.get('docker-content-digest')]
    }
    const secret = sha256('in other/app only')
    const pushed = await fetch(`${server.url}/v2/other/app/blobs/uploads/?digest=${secret}`, {
      method: 'POST',
      headers: { Authorization: basic('admin', PASSWORD) },
      body: 'in other/app only',
    })
    assert.equal(pushed.status, 201)
    for (const query of [`mount=${secret}&from=other/app`, `mount=${secret}`, `mount=${ABSENT}&from=other/app`]) {
      assert.deepEqual(await mount(query), [202, null], query)
    }
    assert.deepEqual(await mount(`mount=${CONFIG_DIGEST}&from=public/app`), [201, CONFIG_DIGEST])
  })
})
