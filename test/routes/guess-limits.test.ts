import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { makeSecret } from '../../src/auth/secrets.ts'
import { type AccessServer, PASSWORD, basic, startAccessServer } from '../support/access.ts'

const PER_ACCOUNT = 3
const PER_ADDRESS = 8

interface Answer {
  readonly status: number
  readonly code: string | undefined
  /** Seconds, as `Retry-After` says them. */
  readonly retryAfter: string | null
}

void suite('guesses over HTTP are limited (OWASP ASVS 5.0 section 6.3.1, RFC 6585 section 4)', () => {
  let server: AccessServer
  let robot: { readonly name: string; readonly secret: string }
  let token: string

  before(async () => {
    server = await startAccessServer({
      BERTH_AUTH_GUESSES_PER_ACCOUNT: String(PER_ACCOUNT),
      BERTH_AUTH_GUESSES_PER_ADDRESS: String(PER_ADDRESS),
      BERTH_AUTH_ALLOW_PLAIN_HTTP: 'true',
      BERTH_HTTP_TRUSTED_PROXIES: '127.0.0.1',
    })
    for (const name of ['alice', 'bob']) await server.administer('POST', '/users', { name, password: PASSWORD })
    const grants = [{ pattern: 'team/**', actions: ['pull'] }]
    const made = await server.administer('POST', '/robots', { name: 'farm', grants })
    robot = { name: String(made['name']), secret: String(made['secret']) }
    token = String((await server.administer('POST', '/tokens', { user: 'alice', name: 'laptop' }))['secret'])
  })
  after(() => server.stop())

  const ask = async (client: string, init: RequestInit = {}, path = '/token?service=berth'): Promise<Answer> => {
    const headers = new Headers(init.headers)
    headers.set('X-Forwarded-For', client)
    const response = await fetch(`${server.url}${path}`, { ...init, headers })
    const text = await response.text()
    const body = (text === '' ? {} : JSON.parse(text)) as { code?: string; errors?: { code: string }[] }
    return {
      status: response.status,
      code: body.errors?.[0]?.code ?? body.code,
      retryAfter: response.headers.get('retry-after'),
    }
  }
  const login = async (client: string, name: string, password: string): Promise<Answer> =>
    await ask(client, { headers: { Authorization: basic(name, password) } })
  const refresh = async (client: string, refreshToken: string): Promise<Answer> =>
    await ask(client, {
      method: 'POST',
      body: new URLSearchParams({ grant_type: 'refresh_token', refresh_token: refreshToken }),
    })

  function assertHeld(answer: Answer): void {
    assert.equal(answer.status, 429)
    assert.equal(answer.code, 'TOOMANYREQUESTS')
    assert.match(answer.retryAfter ?? '', /^[1-9]\d*$/)
    assert.ok(Number(answer.retryAfter) <= 300)
  }

  /** Wrong logins, each with a name of its own, until the address is held off. */
  async function holdOff(clientOf: (index: number) => string): Promise<void> {
    for (let index = 0; index < PER_ADDRESS; index += 1) {
      assert.equal((await login(clientOf(index), `stranger${index}`, `guess ${index}`)).status, 401)
    }
  }

  test('an address that guessed too often is held off with Retry-After for every account, and no other address is', async () => {
    await holdOff(() => '192.0.2.10')
    assertHeld(await login('192.0.2.10', 'alice', PASSWORD))
    assert.equal((await login('192.0.2.11', 'alice', PASSWORD)).status, 200)
  })

  test('who is held off learns nothing of a password that others log in with (NIST SP 800-63B section 3.2.2)', async () => {
    assert.equal((await login('192.0.2.21', 'bob', PASSWORD)).status, 200)
    for (let guess = 0; guess < PER_ACCOUNT; guess += 1) {
      assert.equal((await login('192.0.2.20', 'bob', `guess ${guess}`)).status, 401)
    }
    assertHeld(await login('192.0.2.20', 'bob', PASSWORD))
    assert.equal((await login('192.0.2.21', 'bob', PASSWORD)).status, 200)
  })

  test('a login that goes on failing holds off itself and not all others behind its address', async () => {
    for (let guess = 0; guess < 3 * PER_ADDRESS; guess += 1) await login('192.0.2.30', 'bob', 'the former password')
    assertHeld(await login('192.0.2.30', 'bob', 'the former password'))
    assert.equal((await login('192.0.2.30', 'alice', PASSWORD)).status, 200)
  })

  test('an IPv6 client is its /64, because it may choose any address of it (RFC 7421)', async () => {
    await holdOff(index => `2001:db8:0:1:${index}::${index + 1}`)
    assertHeld(await login('2001:db8:0:1:ffff:ffff:ffff:ffff', 'alice', PASSWORD))
    assert.equal((await login('2001:db8:0:2::1', 'alice', PASSWORD)).status, 200)
  })

  test('an IPv4 client is the same one by its IPv4-mapped address (RFC 4291 section 2.5.5.2)', async () => {
    await holdOff(index => (index % 2 === 0 ? '192.0.2.40' : '::ffff:192.0.2.40'))
    assertHeld(await login('::ffff:192.0.2.40', 'alice', PASSWORD))
    assertHeld(await login('192.0.2.40', 'alice', PASSWORD))
    assert.equal((await login('::ffff:192.0.2.41', 'alice', PASSWORD)).status, 200)
  })

  test('malformed refresh tokens count for the address like wrong passwords (RFC 6749 section 10.10)', async () => {
    for (let index = 0; index < PER_ADDRESS; index += 1) {
      assert.equal((await refresh('192.0.2.50', `berth_ref_${index}`)).status, 401)
    }
    assertHeld(await refresh('192.0.2.50', 'berth_ref_another'))
    assertHeld(await login('192.0.2.50', 'alice', PASSWORD))
  })

  test('unknown refresh tokens count for the address (RFC 6749 section 10.10)', async () => {
    for (let index = 0; index < PER_ADDRESS; index += 1) {
      assert.equal((await refresh('192.0.2.51', makeSecret('refresh').text)).status, 401)
    }
    assertHeld(await refresh('192.0.2.51', makeSecret('refresh').text))
  })

  test('one wrong refresh token shown again and again is held off by itself (RFC 6749 section 10.10)', async () => {
    for (const { text } of [makeSecret('refresh'), { text: 'berth_ref_none' }]) {
      for (let guess = 0; guess < PER_ACCOUNT; guess += 1) {
        assert.equal((await refresh('192.0.2.52', text)).status, 401)
      }
      for (let guess = 0; guess < PER_ADDRESS; guess += 1) assertHeld(await refresh('192.0.2.52', text))
    }
    assert.equal((await refresh('192.0.2.52', makeSecret('refresh').text)).status, 401)
  })

  test('a right token or robot secret is judged while its address is held off for passwords', async () => {
    await holdOff(() => '192.0.2.60')
    assertHeld(await login('192.0.2.60', 'alice', PASSWORD))
    assert.equal((await login('192.0.2.60', robot.name, robot.secret)).status, 200)
    assert.equal((await login('192.0.2.60', 'alice', token)).status, 200)
  })

  test('a right token is judged while the name beside it is held off', async () => {
    for (let guess = 0; guess < PER_ACCOUNT; guess += 1) await login('192.0.2.61', 'alice', `guess ${guess}`)
    assertHeld(await login('192.0.2.61', 'alice', PASSWORD))
    assert.equal((await login('192.0.2.61', 'alice', token)).status, 200)
  })

  test('wrong secrets are counted each by itself whatever name stands beside it, and hold off no other', async () => {
    const expired = makeSecret('pat').text
    for (let guess = 0; guess < PER_ACCOUNT; guess += 1) {
      assert.equal((await login('192.0.2.62', `name${guess}`, expired)).status, 401)
    }
    assertHeld(await login('192.0.2.62', 'another', expired))
    assert.equal((await login('192.0.2.62', 'another', token)).status, 200)
  })

  test('wrong secrets have a limit of their own, which a secret that was right before is beyond', async () => {
    const client = '192.0.2.63'
    assert.equal((await login(client, robot.name, robot.secret)).status, 200)
    for (let index = 0; index < PER_ADDRESS; index += 1) {
      assert.equal((await login(client, robot.name, makeSecret('robot').text)).status, 401)
    }
    assertHeld(await login(client, robot.name, makeSecret('robot').text))
    assert.equal((await login(client, robot.name, robot.secret)).status, 200)
    // Passwords are counted apart.
    assert.equal((await login(client, 'alice', PASSWORD)).status, 200)
  })

  test('the current password that a change of it asks for is guessed by the same limit, and each guess is recorded', async () => {
    const client = '192.0.2.70'
    const headers = { Authorization: basic('bob', PASSWORD), 'Content-Type': 'application/json' }
    const change = async (current: string): Promise<Answer> => {
      const body = JSON.stringify({ password: 'a new password of bob', current })
      return await ask(client, { method: 'PUT', headers, body }, '/api/v1/users/bob/password')
    }
    const own = String((await server.administer('POST', '/tokens', { user: 'bob', name: 'own' }))['secret'])
    headers.Authorization = basic('bob', own)
    // A token is no password: who stole one must not set another password with it.
    for (const guess of ['guess', own, 'another guess']) {
      const answer = await change(guess)
      assert.deepEqual([answer.status, answer.code], [403, 'DENIED'])
    }
    assertHeld(await change(PASSWORD))
    assertHeld(await login(client, 'bob', PASSWORD))
    const { items } = (await server.administer('GET', '/audit?kind=administration&limit=1000')) as {
      items: { actor: string; client: string; detail: { act: string } }[]
    }
    const recorded = items.filter(entry => entry.actor === 'bob' && entry.client === client)
    assert.equal(recorded.length, PER_ACCOUNT)
    assert.ok(recorded.every(entry => entry.detail.act === 'setUserPassword'))
  })
})
