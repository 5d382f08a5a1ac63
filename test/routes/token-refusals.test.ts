import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import type { Context } from 'koa'
import { RegistryError } from '../../src/oci/errors.ts'
import { tokenRefusals } from '../../src/routes/token-refusals.ts'
import { type AccessServer, PASSWORD, basic, startAccessServer } from '../support/access.ts'

const GUESSES = 5
/** The same challenge for every refusal of the token endpoint: RFC 7617 section 2.1. */
const CHALLENGE = 'Basic realm="berth", charset="UTF-8"'

interface Refused {
  readonly status: number
  readonly headers: Headers
  readonly error: unknown
  readonly description: unknown
  /** What clients print: the first entry of the protocol's own form. */
  readonly code: string | undefined
  readonly message: string | undefined
}

void suite('a refusal of the token endpoint', () => {
  let server: AccessServer
  let expired: string

  before(async () => {
    server = await startAccessServer({ BERTH_AUTH_GUESSES_PER_ACCOUNT: String(GUESSES) })
    await server.administer('POST', '/users', { name: 'left', password: PASSWORD })
    await server.administer('PATCH', '/users/left', { disabled: true })
    const { secret } = await server.administer('POST', '/robots', {
      name: 'expired',
      grants: [{ pattern: 'team/**', actions: ['pull'] }],
      expiresAt: new Date(Date.now() - 1_000).toISOString(),
    })
    expired = String(secret)
  })
  after(() => server.stop())

  async function read(response: Response): Promise<Refused> {
    const body = (await response.json()) as {
      readonly errors?: readonly { readonly code: string; readonly message: string }[]
      readonly error?: unknown
      readonly error_description?: unknown
    }
    const [first] = body.errors ?? []
    return {
      status: response.status,
      headers: response.headers,
      error: body.error,
      description: body.error_description,
      code: first?.code,
      message: first?.message,
    }
  }

  const get = async (authorization: string): Promise<Refused> =>
    await read(await fetch(`${server.url}/token?service=berth`, { headers: { Authorization: authorization } }))

  const post = async (fields: Readonly<Record<string, string>>): Promise<Refused> =>
    await read(await fetch(`${server.url}/token`, { method: 'POST', body: new URLSearchParams(fields) }))

  const password = (name: string, shown: string): Readonly<Record<string, string>> => ({
    grant_type: 'password',
    username: name,
    password: shown,
  })

  /** Credentials that are wrong in some way, and what a person is told. */
  const wrong: Readonly<Record<string, readonly [name: string, shown: () => string, told: RegExp]>> = {
    'a wrong password': ['admin', () => 'not the password', /^wrong name or password$/],
    'an unknown name': ['nobody', () => PASSWORD, /^wrong name or password$/],
    'a disabled user': ['left', () => PASSWORD, /^left is disabled$/],
    'an expired robot': ['robot+expired', () => expired, /^robot\+expired has expired$/],
    'a name that no index can hold': ['a\0b', () => PASSWORD, /^wrong name or password$/],
  }
  for (const [what, [name, shown, told]] of Object.entries(wrong)) {
    if (!name.includes('\0')) {
      test(`is 401 with one challenge of the scheme that is taken there: ${what} (RFC 9110 section 15.5.2)`, async () => {
        const { status, headers, code, message, error } = await get(basic(name, shown()))
        assert.equal(status, 401)
        assert.equal(headers.get('www-authenticate'), CHALLENGE)
        assert.equal(headers.get('cache-control'), 'no-store')
        assert.equal(code, 'UNAUTHORIZED')
        assert.match(message ?? '', told)
        // What RFC 6749 says is of its own form of the request.
        assert.equal(error, undefined)
      })
    }

    test(`of a form says it in both forms: ${what} (RFC 6749 section 5.2; distribution-spec, "Error Codes")`, async () => {
      const { status, headers, ...said } = await post(password(name, shown()))
      assert.equal(status, 401)
      assert.equal(headers.get('www-authenticate'), CHALLENGE)
      assert.equal(headers.get('cache-control'), 'no-store')
      assert.equal(said.error, 'invalid_grant')
      assert.equal(said.code, 'UNAUTHORIZED')
      assert.match(said.message ?? '', told)
      assert.equal(said.description, said.message)
    })
  }

  test('of a refresh token that is none is invalid_grant (RFC 6749 section 5.2)', async () => {
    const { status, error, message, description } = await post({
      grant_type: 'refresh_token',
      refresh_token: 'berth_ref_none',
    })
    assert.deepEqual([status, error], [401, 'invalid_grant'])
    assert.match(message ?? '', /log in again/)
    assert.equal(description, message)
  })

  test('of a form without a parameter that its grant needs is 400 invalid_request, and no guess (RFC 6749 section 5.2)', async () => {
    const forms = [
      { grant_type: 'password', username: 'hasty' },
      { grant_type: 'password', password: PASSWORD },
      { grant_type: 'refresh_token' },
    ]
    for (let turn = 0; turn <= GUESSES; turn += 1) {
      for (const form of forms) {
        const refused = await post(form)
        assert.deepEqual([refused.status, refused.error, refused.code], [400, 'invalid_request', 'UNSUPPORTED'])
      }
    }
  })

  test('of another grant is unsupported_grant_type, and of none invalid_request, both 400 without a challenge (RFC 6749 section 5.2)', async () => {
    for (const [fields, expected] of [
      [{ grant_type: 'client_credentials' }, 'unsupported_grant_type'],
      [{ grant_type: '' }, 'invalid_request'],
      [{}, 'invalid_request'],
    ] as const) {
      const { status, headers, error, code, message, description } = await post(fields)
      assert.deepEqual([status, error, code], [400, expected, 'UNSUPPORTED'])
      assert.equal(headers.get('www-authenticate'), null)
      assert.match(message ?? '', /password or refresh_token/)
      assert.equal(description, message)
    }
  })

  test('of what is no form is invalid_request (RFC 6749 section 5.2)', async () => {
    const response = await fetch(`${server.url}/token`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ grant_type: 'password' }),
    })
    const { status, error } = await read(response)
    assert.deepEqual([status, error], [400, 'invalid_request'])
  })

  test('of too many wrong logins is 429 and no error of the grant: it may be right (RFC 6585 section 4)', async () => {
    for (let guess = 0; guess < GUESSES; guess += 1) {
      assert.equal((await post(password('guessed', `guess ${guess}`))).status, 401)
    }
    const answer = await post(password('guessed', PASSWORD))
    assert.equal(answer.status, 429)
    assert.match(answer.headers.get('retry-after') ?? '', /^[1-9]\d*$/)
    assert.equal(answer.headers.get('www-authenticate'), null)
    assert.deepEqual([answer.code, answer.error], ['TOOMANYREQUESTS', undefined])
  })
})

test('an error is described in the characters that its grammar has (RFC 6749 section 5.2, appendix A.8)', async () => {
  const context = { method: 'POST' } as unknown as Context
  const refusal = new RegistryError('UNAUTHORIZED', { message: 'mü"ller\\ is disabled\n' })
  await assert.rejects(tokenRefusals('berth')(context, () => Promise.reject(refusal)) as Promise<void>, {
    message: refusal.message,
    members: { error: 'invalid_grant', error_description: "m?'ller? is disabled?" },
  })
})
