import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { MAX_AUTHORIZATION_LENGTH } from '../../src/auth/challenge.ts'
import { MAX_TOKEN_LENGTH } from '../../src/auth/tokens.ts'
import { type AccessServer, PASSWORD, basic, fetchToken, startAccessServer } from '../support/access.ts'
import { type TestIssuer, startIssuer } from '../support/issuer.ts'

/** What a proxy, a browser's cookies and tracing add to a request's head. */
const OTHER_HEADERS = 8 * 1024

void suite('what is taken by its length can be sent (RFC 9110 section 5.4)', () => {
  let directory: string
  let issuer: TestIssuer
  let server: AccessServer

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'berth-test-long-'))
    issuer = await startIssuer()
    const keyFile = join(directory, 'keys.json')
    const jwk = { ...issuer.publicKey.export({ format: 'jwk' }), kid: 'one' }
    await writeFile(keyFile, JSON.stringify({ keys: [jwk] }))
    server = await startAccessServer({
      BERTH_AUTH_ISSUERS: JSON.stringify([{ issuer: 'token server', keyFile }]),
      BERTH_AUTH_ALLOW_PRIVATE_ISSUERS: 'true',
    })
    await server.administer('POST', '/trust-rules', {
      name: 'jobs',
      issuer: issuer.url,
      audience: 'registry.example',
      claims: { project: '1' },
      grants: [{ pattern: 'team/**', actions: ['pull'] }],
    })
  })
  after(async () => {
    await server?.stop()
    await issuer?.close()
    await rm(directory, { recursive: true, force: true })
  })

  /** A token with these claims, filled up to the greatest length that is no more than `length`. */
  function filled(claims: object, length: number): string {
    const signed = (fill: number): string => issuer.sign({ ...claims, fill: 'x'.repeat(fill) })
    let fill = Math.floor(((length - signed(0).length) * 3) / 4)
    while (signed(fill).length > length) fill -= 1
    while (signed(fill + 1).length <= length) fill += 1
    return signed(fill)
  }

  const ask = async (path: string, headers: Readonly<Record<string, string>>): Promise<Response> =>
    await fetch(`${server.url}${path}`, { headers: { 'X-Other': 'o'.repeat(OTHER_HEADERS), ...headers } })

  const foreign = { iss: 'token server', aud: 'berth', sub: 'alice', access: [] }
  const identity = { aud: 'registry.example', sub: 'job', project: '1' }

  test('the longest access token opens, and a longer one is refused with a challenge', async () => {
    const longest = filled(foreign, MAX_TOKEN_LENGTH)
    assert.ok(longest.length > MAX_TOKEN_LENGTH - 2)
    assert.equal((await ask('/v2/', { Authorization: `Bearer ${longest}` })).status, 200)
    const longer = filled(foreign, MAX_TOKEN_LENGTH + 3)
    assert.ok(longer.length > MAX_TOKEN_LENGTH)
    const refused = await ask('/v2/', { Authorization: `Bearer ${longer}` })
    assert.equal(refused.status, 401)
    assert.match(refused.headers.get('www-authenticate') ?? '', /error="invalid_token",error_description="[^"]+"$/)
  })

  test('the longest identity token logs in as the password beside the longest name', async () => {
    const token = filled(identity, MAX_TOKEN_LENGTH)
    const Authorization = basic('n'.repeat(255), token)
    assert.ok(Authorization.length <= MAX_AUTHORIZATION_LENGTH)
    assert.equal((await ask('/token?service=berth', { Authorization })).status, 200)
    const body = new URLSearchParams({ grant_type: 'password', username: 'n'.repeat(255), password: token })
    assert.equal((await fetch(`${server.url}/token`, { method: 'POST', body })).status, 200)
    const longer = basic('ci', filled(identity, MAX_TOKEN_LENGTH + 3))
    assert.equal((await ask('/token?service=berth', { Authorization: longer })).status, 401)
  })

  test('a header of the greatest length is read, and one more character makes it one that cannot be', async () => {
    const header = `Bearer ${'a'.repeat(MAX_AUTHORIZATION_LENGTH - 'Bearer '.length)}`
    for (const [Authorization, said] of [
      [header, /the token is not valid/],
      [`${header}a`, /the Authorization header cannot be read/],
    ] as const) {
      const answer = await ask('/v2/', { Authorization })
      assert.equal(answer.status, 401)
      assert.match(
        answer.headers.get('www-authenticate') ?? '',
        /^Bearer .*error="invalid_token",error_description="[^"]+"$/,
      )
      assert.match(await answer.text(), said)
    }
  })

  test('no token is issued that would be too long to be taken: that is 400, and fewer scopes are 200', async () => {
    const scopes = (count: number): string[] =>
      Array.from({ length: count }, (_, index) => `repository:${String(index).padStart(3, '0').padEnd(255, 'x')}:*`)
    const credentials = basic('admin', PASSWORD)
    const token = await fetchToken(server.url, scopes(50), credentials)
    assert.equal((await ask('/v2/', { Authorization: `Bearer ${token}` })).status, 200)
    const query = new URLSearchParams(scopes(100).map(scope => ['scope', scope] as [string, string]))
    const answer = await fetch(`${server.url}/token?${query.toString()}`, { headers: { Authorization: credentials } })
    assert.equal(answer.status, 400)
    assert.match(await answer.text(), /fewer scopes/)
    query.set('grant_type', 'password')
    query.set('username', 'admin')
    query.set('password', PASSWORD)
    const form = await fetch(`${server.url}/token`, { method: 'POST', body: query })
    assert.equal(form.status, 400)
    // RFC 6749 section 5.2
    assert.equal(((await form.json()) as { error: unknown }).error, 'invalid_scope')
  })
})
