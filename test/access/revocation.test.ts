import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { type AccessServer, PASSWORD, basic, fetchToken, startAccessServer } from '../support/access.ts'
import { until } from '../support/clients.ts'

const SCOPE = 'repository:team/app:pull,push'

void suite('what is taken back is over', () => {
  let server: AccessServer
  let count = 0

  before(async () => {
    server = await startAccessServer()
  })
  after(() => server.stop())

  /** A user of its own who may push to team/app. */
  async function makeUser(): Promise<string> {
    const name = `user${(count += 1)}`
    await server.administer('POST', '/users', { name, password: PASSWORD })
    await grant(name)
    return name
  }

  const grant = async (name: string): Promise<unknown> =>
    await server.administer('POST', '/grants', {
      subject: { kind: 'principal', name },
      pattern: 'team/app',
      actions: ['push'],
    })

  const start = async (authorization: string): Promise<Response> =>
    await fetch(`${server.url}/v2/team/app/blobs/uploads/`, {
      method: 'POST',
      headers: { Authorization: authorization },
    })
  const statusBy = async (authorization: string): Promise<number> => (await start(authorization)).status
  const login = async (credentials: string): Promise<number> =>
    (await fetch(`${server.url}/token`, { headers: { Authorization: credentials } })).status

  const ends: Readonly<Record<string, (name: string) => Promise<unknown>>> = {
    disabled: name => server.administer('PATCH', `/users/${name}`, { disabled: true }),
    deleted: name => server.administer('DELETE', `/users/${name}`),
    'given another password': name =>
      server.administer('PUT', `/users/${name}/password`, { password: `another ${PASSWORD}` }),
  }
  for (const [what, end] of Object.entries(ends)) {
    test(`a user who is ${what}: its tokens, its password and the uploads it began are refused`, async () => {
      const name = await makeUser()
      const password = basic(name, PASSWORD)
      const token = `Bearer ${await fetchToken(server.url, [SCOPE], password)}`
      const begun = await start(token)
      assert.equal(begun.status, 202)
      const location = begun.headers.get('location') ?? ''
      await end(name)
      assert.equal(await statusBy(token), 401)
      assert.equal(await statusBy(password), 401)
      assert.equal((await fetch(`${server.url}${location}`, { method: 'PATCH', body: 'x' })).status, 401)
    })
  }

  test('a user who was deleted and made again under its name is another: former tokens stay dead', async () => {
    const name = await makeUser()
    const token = `Bearer ${await fetchToken(server.url, [SCOPE], basic(name, PASSWORD))}`
    await server.administer('DELETE', `/users/${name}`)
    await server.administer('POST', '/users', { name, password: PASSWORD })
    await grant(name)
    assert.equal(await statusBy(token), 401)
    assert.equal(await statusBy(basic(name, PASSWORD)), 202)
  })

  test('who left a group has what it was granted no more, also after logging in again (CVE-2025-23208)', async () => {
    const name = `user${(count += 1)}`
    const { administer } = server
    await administer('POST', '/users', { name, password: PASSWORD })
    await administer('POST', '/groups', { name: 'pushers' })
    const subject = { kind: 'group', name: 'pushers' }
    await administer('POST', '/grants', { subject, pattern: 'team/app', actions: ['push'] })
    const byToken = async (): Promise<number> =>
      await statusBy(`Bearer ${await fetchToken(server.url, [SCOPE], basic(name, PASSWORD))}`)
    const ways = async (): Promise<number[]> => [await statusBy(basic(name, PASSWORD)), await byToken()]
    await administer('PUT', `/groups/pushers/members/${name}`)
    assert.deepEqual(await ways(), [202, 202])
    await administer('DELETE', `/groups/pushers/members/${name}`)
    assert.deepEqual(await ways(), [401, 401])
  })

  test('a rotated secret works beside the former one, and the one before that is refused', async () => {
    const grants = [{ pattern: 'team/app', actions: ['push'] }]
    const { name, secret: first } = await server.administer('POST', '/robots', { name: 'rotates', grants })
    const rotate = async (): Promise<unknown> =>
      (await server.administer('POST', '/robots/rotates/secrets', { overlapSeconds: 3600 }))['secret']
    const second = await rotate()
    const check = async (secret: unknown): Promise<number> => await login(basic(String(name), String(secret)))
    assert.deepEqual([await check(first), await check(second)], [200, 200])
    const third = await rotate()
    assert.deepEqual([await check(second), await check(third)], [200, 200])
    await until('the first secret is forgotten', async () => (await check(first)) === 401)
  })

  test('a robot whose time is over is told so, and refused (goharbor/harbor-satellite #307)', async () => {
    const grants = [{ pattern: 'team/app', actions: ['push'] }]
    const expiresAt = new Date(Date.now() - 1_000).toISOString()
    const { name, secret } = await server.administer('POST', '/robots', { name: 'expired', grants, expiresAt })
    const response = await fetch(`${server.url}/token`, {
      headers: { Authorization: basic(String(name), String(secret)) },
    })
    assert.equal(response.status, 401)
    assert.match(await response.text(), /robot\+expired has expired/)
  })

  test('an upload goes on by its Location without a token, and the Location of another does not do (moby/moby #33558)', async () => {
    const password = basic(await makeUser(), PASSWORD)
    const [one, other] = await Promise.all([start(password), start(password)])
    const path = new URL(one.headers.get('location') ?? '', server.url)
    assert.equal((await fetch(path, { method: 'PATCH', body: 'content' })).status, 202)
    const stolen = new URL(other.headers.get('location') ?? '', server.url)
    stolen.pathname = path.pathname
    assert.equal((await fetch(stolen, { method: 'PATCH', body: 'content' })).status, 401)
    path.search = ''
    assert.equal((await fetch(path, { method: 'PATCH', body: 'content' })).status, 401)
    const asBearer = `Bearer ${stolen.searchParams.get('grant')}`
    assert.equal(await statusBy(asBearer), 401)
  })

  test('the last administrator can be neither removed nor disabled nor lose its grant', async () => {
    const { items } = await server.administer('GET', '/grants?principal=admin')
    const [own] = items as { id: number }[]
    for (const [method, path, body] of [
      ['DELETE', '/users/admin', undefined],
      ['PATCH', '/users/admin', { disabled: true }],
      ['DELETE', `/grants/${own?.id}`, undefined],
    ] as const) {
      await assert.rejects(server.administer(method, path, body), /409.*nobody who administers/)
    }
  })

  test('nobody widens what he has: scoped tokens make no tokens, and a team administers only its own', async () => {
    const lead = await makeUser()
    await server.administer('POST', '/grants', {
      subject: { kind: 'principal', name: lead },
      pattern: 'team/**',
      actions: ['admin'],
    })
    const scopes = [{ pattern: 'team/**', actions: ['pull'] }]
    const { secret } = await server.administer('POST', '/tokens', { user: lead, name: 'narrow', scopes })
    const call = async (authorization: string, method: string, path: string, body: object): Promise<number> => {
      const headers = { Authorization: authorization, 'Content-Type': 'application/json' }
      return (await fetch(`${server.url}/api/v1${path}`, { method, headers, body: JSON.stringify(body) })).status
    }
    const narrow = `Bearer ${String(secret)}`
    const own = basic(lead, PASSWORD)
    const everyone = { kind: 'authenticated' }
    assert.equal(await call(narrow, 'POST', '/tokens', { name: 'wide' }), 403)
    assert.equal(await call(narrow, 'PUT', `/users/${lead}/password`, { password: PASSWORD, current: PASSWORD }), 403)
    assert.equal(
      await call(narrow, 'POST', '/grants', { subject: everyone, pattern: 'team/x', actions: ['pull'] }),
      403,
    )
    assert.equal(await call(own, 'POST', '/grants', { subject: everyone, pattern: 'team/x', actions: ['pull'] }), 201)
    assert.equal(await call(own, 'POST', '/grants', { subject: everyone, pattern: '**', actions: ['pull'] }), 403)
    assert.equal(await call(own, 'POST', '/users', { name: 'mine', password: PASSWORD }), 403)
    const robot = { name: 'wide', grants: [{ pattern: '**', actions: ['admin'] }] }
    assert.equal(await call(own, 'POST', '/robots', robot), 403)
  })
})
