import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { type AccessServer, PASSWORD, basic, startAccessServer } from '../support/access.ts'

const NUL = '\0'
const HALF = '\ud83d'

function part(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url')
}

void suite('text that no index can hold (RFC 7493 section 2.1)', () => {
  let server: AccessServer

  before(async () => {
    server = await startAccessServer()
  })
  after(() => server.stop())

  void test('a name with NUL is a wrong one (RFC 6749 section 5.2)', async () => {
    const name = `ad${NUL}min`
    const body = new URLSearchParams({ grant_type: 'password', service: 'x', username: name, password: PASSWORD })
    assert.equal((await fetch(`${server.url}/token`, { method: 'POST', body })).status, 401)
  })

  void test('an identity token whose issuer has NUL is a wrong password (RFC 7519 section 4.1.1)', async () => {
    const claims = part({ iss: `https://issuer.example/${NUL}` })
    const token = [part({ alg: 'RS256', kid: 'k' }), claims, 'c2ln'].join('.')
    const answer = await fetch(`${server.url}/token?service=x`, { headers: { Authorization: basic('ci', token) } })
    assert.equal(answer.status, 401)
  })

  for (const [what, method, path, body] of [
    ['a query', 'GET', '/users?last=a%00', undefined],
    ['a parameter of a question', 'GET', '/explain?principal=a%00&action=pull&repository=a', undefined],
    ['a path', 'DELETE', '/users/a%00', undefined],
    [
      'a member of a body',
      'POST',
      '/grants',
      { subject: { kind: 'group', name: NUL }, pattern: 'a', actions: ['pull'] },
    ],
    ['a value deep in a body', 'POST', '/trust-rules', trustRule({ ref: NUL })],
    ['a key deep in a body', 'POST', '/trust-rules', trustRule({ [NUL]: 'x' })],
    ['half a pair deep in a body', 'POST', '/trust-rules', trustRule({ ref: HALF })],
  ] as const) {
    void test(`in ${what} of the administration's API is 400 with the reason (RFC 9457)`, async () => {
      const answer = await fetch(`${server.url}/api/v1${path}`, {
        method,
        headers: { Authorization: basic('admin', PASSWORD), 'Content-Type': 'application/json' },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      })
      const text = await answer.text()
      assert.equal(answer.status, 400, text)
      assert.match((JSON.parse(text) as { detail: string }).detail, /must not contain NUL/)
    })
  }
})

function trustRule(claims: Readonly<Record<string, string>>): object {
  return {
    name: 'web',
    issuer: 'https://issuer.example',
    audience: 'us',
    claims,
    grants: [{ pattern: 'a', actions: ['pull'] }],
  }
}
