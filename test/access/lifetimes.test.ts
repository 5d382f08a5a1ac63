import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import jwt from 'jsonwebtoken'
import { PASSWORD, basic, fetchToken } from '../support/access.ts'
import { type AccessApp, TOKEN_LIFETIME_MS, UPLOAD_EXPIRY_MS, startAccessApp } from '../support/access-app.ts'
import { callApi, detailOf } from '../support/api.ts'
import { type TestIssuer, startIssuer } from '../support/issuer.ts'

const MINUTE_MS = 60_000
const REPOSITORY = 'team/app'
const SCOPE = `repository:${REPOSITORY}:pull,push`
const ADMIN = basic('admin', PASSWORD)
/** What `startAccessApp` is told of a token server: what it says is taken as it is. */
const FOREIGN = 'a.token.of-a-token-server'

let app: AccessApp
let issuer: TestIssuer
let count = 0

before(async () => {
  issuer = await startIssuer()
  app = await startAccessApp({
    allowPrivateIssuers: true,
    foreign: {
      verify: async token =>
        token === FOREIGN
          ? {
              identity: { kind: 'foreign', name: 'stranger' },
              access: [{ type: 'repository', name: REPOSITORY, actions: ['pull', 'push'] }],
            }
          : undefined,
    },
  })
})
after(async () => {
  await app.close()
  await issuer.close()
})

const call = async (method: string, path: string, body?: object, as = ADMIN): Promise<Record<string, unknown>> => {
  const answer = await callApi(app.url, as, method, path, body)
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`)
  return (answer.body ?? {}) as Record<string, unknown>
}

async function makeUser(): Promise<{ name: string; password: string }> {
  const name = `user${(count += 1)}`
  await call('POST', '/users', { name, password: PASSWORD })
  await grant(name)
  return { name, password: basic(name, PASSWORD) }
}

const grant = async (name: string): Promise<number> => {
  const subject = { kind: 'principal', name }
  return Number((await call('POST', '/grants', { subject, pattern: REPOSITORY, actions: ['push'] }))['id'])
}

const tokenBy = async (credentials: string): Promise<string> => await fetchToken(app.url, [SCOPE], credentials)
const claimsOf = (token: string): { iat: number; exp: number } => jwt.decode(token) as { iat: number; exp: number }
const begin = async (authorization: string): Promise<{ status: number; location: URL }> => {
  const answer = await fetch(`${app.url}/v2/${REPOSITORY}/blobs/uploads/`, {
    method: 'POST',
    headers: { Authorization: authorization },
  })
  await answer.arrayBuffer()
  return { status: answer.status, location: new URL(answer.headers.get('location') ?? '/', app.url) }
}
const goOn = async (location: URL): Promise<{ status: number; location: URL }> => {
  const answer = await fetch(location, { method: 'PATCH', body: 'more' })
  await answer.arrayBuffer()
  return { status: answer.status, location: new URL(answer.headers.get('location') ?? '/', app.url) }
}

void suite('an access token ends no later than what it was fetched with (RFC 6749 section 1.5)', () => {
  test('a personal token', async () => {
    const { name, password } = await makeUser()
    const expiresAt = new Date(Date.now() + 2 * MINUTE_MS)
    const { secret } = await call('POST', '/tokens', { name: 'short', expiresAt: expiresAt.toISOString() }, password)
    const { exp } = claimsOf(await tokenBy(basic(name, String(secret))))
    assert.ok(exp * 1000 <= expiresAt.getTime() && exp * 1000 > expiresAt.getTime() - MINUTE_MS)
  })

  test('a secret that was replaced and is good for an overlap', async () => {
    const { name, password } = await makeUser()
    const { secret } = await call('POST', '/tokens', { name: 'turned' }, password)
    await call('POST', '/tokens/turned/secrets', { overlapSeconds: 120 }, password)
    const { exp } = claimsOf(await tokenBy(basic(name, String(secret))))
    assert.ok(exp * 1000 <= Date.now() + 2 * MINUTE_MS)
  })

  test('a robot that ends', async () => {
    const expiresAt = new Date(Date.now() + 2 * MINUTE_MS)
    const grants = [{ pattern: REPOSITORY, actions: ['push'] }]
    const robot = await call('POST', '/robots', { name: 'short', grants, expiresAt: expiresAt.toISOString() })
    const { exp } = claimsOf(await tokenBy(basic(String(robot['name']), String(robot['secret']))))
    assert.ok(exp * 1000 <= expiresAt.getTime())
  })

  test('what does not end by itself leaves it its whole life', async () => {
    const { name, password } = await makeUser()
    const { secret } = await call('POST', '/tokens', { name: 'long' }, password)
    for (const credentials of [password, basic(name, String(secret))]) {
      const { iat, exp } = claimsOf(await tokenBy(credentials))
      assert.equal((exp - iat) * 1000, TOKEN_LIFETIME_MS)
    }
  })
})

void suite('what came of a secret ends with it, and nothing else does (RFC 7009 section 2.1)', () => {
  const ends: Readonly<Record<string, (password: string) => Promise<unknown>>> = {
    deleted: password => call('DELETE', '/tokens/laptop', undefined, password),
    'replaced at once': password => call('POST', '/tokens/laptop/secrets', { overlapSeconds: 0 }, password),
    'replaced twice': async password => {
      await call('POST', '/tokens/laptop/secrets', { overlapSeconds: 3_600 }, password)
      await call('POST', '/tokens/laptop/secrets', { overlapSeconds: 3_600 }, password)
    },
  }
  for (const [what, end] of Object.entries(ends)) {
    test(`a personal token that is ${what}`, async () => {
      const { name, password } = await makeUser()
      const { secret } = await call('POST', '/tokens', { name: 'laptop' }, password)
      const token = `Bearer ${await tokenBy(basic(name, String(secret)))}`
      const other = `Bearer ${await tokenBy(password)}`
      const upload = await begin(token)
      const otherUpload = await begin(other)
      assert.deepEqual([upload.status, otherUpload.status], [202, 202])
      await end(password)
      assert.deepEqual([(await begin(token)).status, (await goOn(upload.location)).status], [401, 401])
      assert.deepEqual([(await begin(other)).status, (await goOn(otherUpload.location)).status], [202, 202])
    })
  }

  test('one whose time is over', async () => {
    const { name, password } = await makeUser()
    const { secret } = await call('POST', '/tokens', { name: 'laptop' }, password)
    const upload = await begin(`Bearer ${await tokenBy(basic(name, String(secret)))}`)
    await app.db.transaction(tx => tx.query(`update access_token set expires_at = now() where name = 'laptop'`))
    assert.equal((await goOn(upload.location)).status, 401)
  })
})

void suite('a personal token makes nothing that would outlive it (OWASP ASVS 5.0, 7.4)', () => {
  test('no token and no secret, its own neither; it may list and remove', async () => {
    const { password } = await makeUser()
    const { secret } = await call('POST', '/tokens', { name: 'maker' }, password)
    await call('POST', '/tokens', { name: 'other' }, password)
    const maker = `Bearer ${String(secret)}`
    for (const [path, body] of [
      ['/tokens', { name: 'made' }],
      ['/tokens/other/secrets', {}],
      ['/tokens/maker/secrets', {}],
    ] as const) {
      const answer = await callApi(app.url, maker, 'POST', path, body)
      assert.equal(answer.status, 403)
      assert.match(detailOf(answer), /log in with the password/)
    }
    const { items } = await call('GET', '/tokens', undefined, maker)
    assert.equal((items as unknown[]).length, 2)
    await call('DELETE', '/tokens/other', undefined, maker)
  })

  test('nor does one of an administrator, for anybody', async () => {
    const { name } = await makeUser()
    const { secret } = await call('POST', '/tokens', { name: 'maker' })
    const answer = await callApi(app.url, `Bearer ${String(secret)}`, 'POST', '/tokens', { user: name, name: 'made' })
    assert.equal(answer.status, 403)
  })
})

void suite('the session of a CI job', () => {
  const audience = 'registry.example'

  async function addRule(sessionSeconds: number): Promise<{ name: string; identity: string }> {
    const name = `rule${(count += 1)}`
    const claims = { job: name }
    const grants = [{ pattern: REPOSITORY, actions: ['push'] }]
    await call('POST', '/trust-rules', { name, issuer: issuer.url, audience, claims, grants, sessionSeconds })
    return { name, identity: issuer.sign({ aud: audience, job: name }) }
  }

  const login = async (name: string, password: string): Promise<{ token: string; refresh: string }> => {
    const form = { grant_type: 'password', service: 'berth', client_id: 'test', access_type: 'offline', scope: SCOPE }
    const body = new URLSearchParams({ ...form, username: name, password })
    const answer = await fetch(`${app.url}/token`, { method: 'POST', body })
    assert.equal(answer.status, 200)
    const { access_token: token, refresh_token: refresh } = (await answer.json()) as Record<string, string>
    return { token: token ?? '', refresh: refresh ?? '' }
  }
  const refreshed = async (refresh: string): Promise<{ status: number; token: string }> => {
    const form = { grant_type: 'refresh_token', service: 'berth', client_id: 'test', scope: SCOPE }
    const body = new URLSearchParams({ ...form, refresh_token: refresh })
    const answer = await fetch(`${app.url}/token`, { method: 'POST', body })
    const { access_token: token = '' } = (await answer.json()) as Record<string, string>
    return { status: answer.status, token }
  }

  test('is as long as its rule says; no token of it is good for longer (RFC 6749 section 6)', async () => {
    const { name, identity } = await addRule(120)
    const { token, refresh } = await login(name, identity)
    const first = claimsOf(token)
    assert.ok(first.exp - first.iat <= 120)
    const [row] = await app.db.query<{ ends: Date }>('select max(expires_at) as ends from refresh_token')
    const { ends } = row ?? {}
    assert.ok(ends !== undefined)
    const later = await refreshed(refresh)
    assert.equal(later.status, 200)
    assert.ok(claimsOf(later.token).exp * 1000 <= ends.getTime())
  })

  test('is over when its time is: the refresh token says so, and the job is told to log in again', async () => {
    const { name, identity } = await addRule(120)
    const { refresh } = await login(name, identity)
    await app.db.transaction(tx => tx.query('update refresh_token set expires_at = clock_timestamp()'))
    assert.equal((await refreshed(refresh)).status, 401)
  })

  test('ends with its rule: tokens, refresh tokens and uploads (RFC 7009 section 2.1)', async () => {
    const { name, identity } = await addRule(3_600)
    const { token, refresh } = await login(name, identity)
    const { status, location } = await begin(`Bearer ${token}`)
    assert.equal(status, 202)
    await call('DELETE', `/trust-rules/${name}`)
    assert.equal((await refreshed(refresh)).status, 401)
    assert.equal((await begin(`Bearer ${token}`)).status, 401)
    assert.equal((await goOn(location)).status, 401)
  })

  // Last: it moves the clock.
  for (const how of ['its first token', 'a later token', 'the identity token itself']) {
    test(`ends the uploads that were begun with ${how}, however often they are written to`, async () => {
      const { name, identity } = await addRule(3_600)
      const { token, refresh } = await login(name, identity)
      const authorization: Record<string, string> = {
        'its first token': `Bearer ${token}`,
        'a later token': `Bearer ${(await refreshed(refresh)).token}`,
        'the identity token itself': basic(name, identity),
      }
      let { status, location } = await begin(authorization[how] ?? '')
      assert.equal(status, 202)
      // Longer than the token, and not as long as the session.
      for (let turn = 0; turn < 3; turn += 1) {
        app.advance(1_100_000)
        ;({ status, location } = await goOn(location))
        assert.equal(status, 202)
      }
      app.advance(400_000)
      assert.equal((await goOn(location)).status, 401)
      app.advance(-3_700_000)
    })
  }
})

// Last: it moves the clock.
void suite('the Location of an upload', () => {
  test('ends when the grant to push is taken back, and is good again with another', async () => {
    const { name, password } = await makeUser()
    const { location } = await begin(`Bearer ${await tokenBy(password)}`)
    const goes = await goOn(location)
    assert.equal(goes.status, 202)
    const { items } = await call('GET', `/grants?principal=${name}`)
    await call('DELETE', `/grants/${(items as { id: number }[])[0]?.id}`)
    assert.equal((await goOn(goes.location)).status, 401)
    await grant(name)
    assert.equal((await goOn(goes.location)).status, 202)
  })

  test('outlives the token of who may still push, as often as it is written to', async () => {
    const { password } = await makeUser()
    let { location } = await begin(`Bearer ${await tokenBy(password)}`)
    for (let turn = 0; turn < 3; turn += 1) {
      app.advance(UPLOAD_EXPIRY_MS - MINUTE_MS)
      const went = await goOn(location)
      assert.equal(went.status, 202)
      location = went.location
    }
  })

  test('does not renew itself where only another issuer knows whether its bearer may still push', async () => {
    let { status, location } = await begin(`Bearer ${FOREIGN}`)
    assert.equal(status, 202)
    app.advance(UPLOAD_EXPIRY_MS - 2 * MINUTE_MS)
    ;({ status, location } = await goOn(location))
    assert.equal(status, 202)
    app.advance(3 * MINUTE_MS)
    assert.equal((await goOn(location)).status, 401)
  })
})
