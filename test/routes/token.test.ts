import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import jwt from 'jsonwebtoken'
import { createPublicKey } from 'node:crypto'
import { type AccessServer, PASSWORD, basic, startAccessServer } from '../support/access.ts'

interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly body: Readonly<Record<string, unknown>>
}

interface Claims {
  readonly sub: string
  readonly access: readonly { readonly type: string; readonly name: string; readonly actions: readonly string[] }[]
  readonly [name: string]: unknown
}

const GUESSES = 3
const claimsOf = ({ body }: Answer): Claims => jwt.decode(String(body['token'])) as unknown as Claims
const accessOf = (answer: Answer): string[] =>
  claimsOf(answer).access.map(({ type, name, actions }) => `${type}:${name}:${[...actions].sort().join(',')}`)

void suite('the token endpoint (Distribution: token authentication specification)', () => {
  let server: AccessServer
  const pusher = basic('pusher', PASSWORD)

  before(async () => {
    server = await startAccessServer({ BERTH_AUTH_GUESSES_PER_ACCOUNT: String(GUESSES) })
    for (const name of ['pusher', 'guessed']) await server.administer('POST', '/users', { name, password: PASSWORD })
    const grant = async (subject: object, pattern: string, actions: string[]): Promise<unknown> =>
      await server.administer('POST', '/grants', { subject, pattern, actions })
    await grant({ kind: 'principal', name: 'pusher' }, 'team/**', ['push'])
    await grant({ kind: 'anonymous' }, 'public/**', ['pull'])
  })
  after(() => server.stop())

  async function read(response: Response): Promise<Answer> {
    const body = (await response.json()) as Record<string, unknown>
    return { status: response.status, headers: response.headers, body }
  }

  const get = async (query: string, authorization?: string): Promise<Answer> =>
    await read(
      await fetch(`${server.url}/token?service=berth${query}`, {
        headers: authorization === undefined ? {} : { Authorization: authorization },
      }),
    )

  const post = async (fields: Readonly<Record<string, string>> | readonly [string, string][]): Promise<Answer> => {
    const pairs = Array.isArray(fields) ? (fields as [string, string][]) : Object.entries(fields)
    return await read(await fetch(`${server.url}/token`, { method: 'POST', body: new URLSearchParams(pairs) }))
  }

  /** What clients ask for, and what they get. */
  const forms: Readonly<Record<string, readonly [query: string, granted: readonly string[]]>> = {
    'as Docker asks': ['&scope=repository:team/app:push,pull', ['repository:team/app:pull,push']],
    'as skopeo asks': ['&scope=repository:team/app:pull,push', ['repository:team/app:pull,push']],
    repeated: [
      '&scope=repository:team/a:pull&scope=repository:team/b:pull,push',
      ['repository:team/a:pull', 'repository:team/b:pull,push'],
    ],
    'in one value with a space': [
      '&scope=repository:team/a:pull%20repository:public/x:pull',
      ['repository:team/a:pull', 'repository:public/x:pull'],
    ],
    'twice for one repository': [
      '&scope=repository:team/a:pull&scope=repository:team/a:pull,push',
      ['repository:team/a:pull,push'],
    ],
    'of a class': ['&scope=repository(plugin):team/a:pull', ['repository:team/a:pull']],
    'with a star': ['&scope=repository:team/a:*', ['repository:team/a:pull,push']],
    'more than is granted': ['&scope=repository:team/a:pull,push,delete', ['repository:team/a:pull,push']],
    'for one of two that is granted': [
      '&scope=repository:other/a:pull&scope=repository:team/a:pull',
      ['repository:team/a:pull'],
    ],
    'for nothing that is granted': ['&scope=repository:other/a:pull,push', []],
    'without actions': ['&scope=repository:team/a:', []],
    'without a scope, as docker login asks': ['', []],
    'with an empty scope': ['&scope=', []],
    'of an unknown type': ['&scope=helm:team/a:pull', []],
    'that is malformed': ['&scope=repository&scope=::&scope=repository:TEAM/A:pull', []],
    'for a name with a port, as containerd asks of a mirror (containerd/containerd #4358)': [
      '&scope=repository:host:5000/team/a:pull&scope=repository:team/a:pull',
      ['repository:team/a:pull'],
    ],
    'for the catalog': ['&scope=registry:catalog:*', ['registry:catalog:*']],
    'for less than all of the catalog, which is nothing': ['&scope=registry:catalog:pull', []],
  }
  for (const [form, [query, granted]] of Object.entries(forms)) {
    test(`a scope ${form} gets what is both asked for and granted, with 200`, async () => {
      const answer = await get(query, pusher)
      assert.equal(answer.status, 200)
      assert.deepEqual(accessOf(answer), granted)
    })
  }

  test('the answer holds the token under both names, its life of a minute at least, and when it began', async () => {
    const { headers, body } = await get('&scope=repository:team/a:pull', pusher)
    assert.equal(body['token'], body['access_token'])
    assert.ok(Number(body['expires_in']) >= 60)
    assert.match(String(body['issued_at']), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/)
    assert.equal(headers.get('cache-control'), 'no-store')
    const { iat, exp } = jwt.decode(String(body['token'])) as { iat: number; exp: number }
    assert.equal(exp - iat, body['expires_in'])
    assert.equal(Date.parse(String(body['issued_at'])), iat * 1000)
  })

  test('the published keys verify the token, and say nothing private (RFC 7517 section 4)', async () => {
    const { body } = await get('', pusher)
    const token = String(body['token'])
    const response = await fetch(`${server.url}/.well-known/jwks.json`)
    const { keys } = (await response.json()) as { keys: Record<string, string>[] }
    const kid = jwt.decode(token, { complete: true })?.header.kid
    const jwk = keys.find(key => key['kid'] === kid)
    assert.ok(jwk)
    const key = createPublicKey({ key: jwk, format: 'jwk' })
    const claims = jwt.verify(token, key, { algorithms: ['ES256'], audience: 'berth', issuer: 'berth' })
    assert.equal(claims.sub, 'pusher')
    assert.ok(keys.length >= 2, 'the next key is published before it signs')
    for (const one of keys) assert.equal(one['d'], undefined)
  })

  test('who shows nothing gets a token for what is public; an empty name and password are nobody', async () => {
    for (const authorization of [undefined, 'Basic Og==']) {
      const answer = await get('&scope=repository:public/x:pull,push&scope=repository:team/a:pull', authorization)
      assert.equal(answer.status, 200)
      assert.deepEqual(accessOf(answer), ['repository:public/x:pull'])
      assert.equal(claimsOf(answer).sub, '')
    }
  })

  test('wrong credentials are 401 in the form of the specification, the same for an unknown name', async () => {
    const wrong = await get('', basic('pusher', 'not the password'))
    const unknown = await get('', basic('nobody-of-that-name', PASSWORD))
    assert.deepEqual([wrong.status, unknown.status], [401, 401])
    const [error] = wrong.body['errors'] as { code: string; message: string }[]
    assert.equal(error?.code, 'UNAUTHORIZED')
    assert.match(error?.message ?? '', /wrong name or password/)
    const messages = [wrong, unknown].map(({ body }) => (body['errors'] as { message: string }[])[0]?.message)
    assert.equal(messages[0], messages[1])
  })

  test('a scheme that cannot be read is 401 and not taken for nobody', async () => {
    for (const authorization of ['Basic !!!', 'Negotiate abc', 'Bearer abc']) {
      assert.equal((await get('&scope=repository:public/x:pull', authorization)).status, 401, authorization)
    }
  })

  test('the password grant of a form gives the same (RFC 6749 section 4.3), scopes repeated or with spaces', async () => {
    const grant: [string, string][] = [
      ['grant_type', 'password'],
      ['service', 'berth'],
      ['client_id', 'containerd-client'],
      ['username', 'pusher'],
      ['password', PASSWORD],
    ]
    const spaced = await post([...grant, ['scope', 'repository:team/a:pull repository:team/b:push']])
    const repeated = await post([...grant, ['scope', 'repository:team/a:pull'], ['scope', 'repository:team/b:push']])
    assert.deepEqual([spaced.status, repeated.status], [200, 200])
    assert.deepEqual(accessOf(spaced), ['repository:team/a:pull', 'repository:team/b:push'])
    assert.deepEqual(accessOf(repeated), accessOf(spaced))
    assert.equal(spaced.body['refresh_token'], undefined)
    assert.equal((await post({ grant_type: 'password', username: 'pusher', password: 'wrong' })).status, 401)
  })

  test('a user gets no refresh token in place of the password, and what is none is refused (RFC 6749 section 5.2)', async () => {
    const login = { grant_type: 'password', username: 'pusher', password: PASSWORD, access_type: 'offline' }
    for (const answer of [await post(login), await get('&offline_token=true', pusher)]) {
      assert.equal(answer.status, 200)
      assert.equal(answer.body['refresh_token'], undefined)
    }
    for (const token of ['berth_ref_unknown', PASSWORD, String((await get('', pusher)).body['token']), '']) {
      assert.equal((await post({ grant_type: 'refresh_token', refresh_token: token })).status, 401)
    }
  })

  test('nobody gets no refresh token', async () => {
    assert.equal((await get('&offline_token=true')).body['refresh_token'], undefined)
  })

  test('another grant is 400, and a form that is too long 4xx', async () => {
    assert.equal((await post({ grant_type: 'client_credentials' })).status, 400)
    assert.equal((await post({})).status, 400)
    const { status } = await post({ grant_type: 'password', username: 'x', password: 'x'.repeat(100_000) })
    assert.ok(status >= 400 && status < 500, String(status))
  })

  test('too many wrong guesses are 429 with Retry-After, for that account alone (RFC 6585 section 4)', async () => {
    for (let guess = 0; guess < GUESSES; guess += 1) {
      assert.equal((await get('', basic('guessed', `guess ${guess}`))).status, 401)
    }
    const held = await get('', basic('guessed', PASSWORD))
    assert.equal(held.status, 429)
    assert.match(held.headers.get('retry-after') ?? '', /^[1-9]\d*$/)
    assert.equal((held.body['errors'] as { code: string }[])[0]?.code, 'TOOMANYREQUESTS')
    assert.equal((await get('', pusher)).status, 200)
  })

  test('what is shown is in no log', () => {
    const logged = JSON.stringify(server.log)
    assert.ok(server.log.length > 0)
    assert.ok(!logged.includes(PASSWORD))
    assert.doesNotMatch(logged, /berth_(pat|rob|ref)_[A-Za-z0-9_-]{32}|eyJ[A-Za-z0-9_-]{20}/)
  })
})
