import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { type AccessServer, PASSWORD, basic, fetchToken, startAccessServer } from '../support/access.ts'
import { until } from '../support/clients.ts'
import { type TestDatabase, createDatabase } from '../support/server.ts'

const SCOPE = 'repository:team/app:pull,push'
const GRANTS = [{ pattern: 'team/app', actions: ['push'] }]

void suite('logins of two processes on one Postgres', () => {
  let database: TestDatabase
  let dataDir: string
  let one: AccessServer
  let two: AccessServer
  let count = 0

  const start = (): Promise<AccessServer> =>
    startAccessServer({ BERTH_AUTH_REVOCATION_MAX_AGE: '1s' }, { databaseUrl: database.url, dataDir })
  before(async () => {
    const made = await createDatabase()
    assert.ok(made !== undefined, 'BERTH_TEST_POSTGRES names no server: run npm run test:postgres')
    database = made
    dataDir = await mkdtemp(join(tmpdir(), 'berth-logins-'))
    ;[one, two] = await Promise.all([start(), start()])
  })
  after(async () => {
    await Promise.all([one.stop(), two.stop()])
    await database.drop()
    await rm(dataDir, { recursive: true, force: true })
  })

  const ask = async (server: AccessServer, method: string, path: string, authorization?: string): Promise<Response> => {
    const headers = authorization === undefined ? {} : { Authorization: authorization }
    const response = await fetch(`${server.url}${path}`, { method, headers })
    await response.arrayBuffer()
    return response
  }
  const beginUpload = async (server: AccessServer, authorization: string): Promise<string> => {
    const begun = await ask(server, 'POST', '/v2/team/app/blobs/uploads/', authorization)
    assert.equal(begun.status, 202)
    return begun.headers.get('location') ?? ''
  }

  async function makeUser(): Promise<{ name: string; credentials: string }> {
    const name = `user${(count += 1)}`
    await one.administer('POST', '/users', { name, password: PASSWORD })
    await one.administer('POST', '/grants', { subject: { kind: 'principal', name }, ...GRANTS[0] })
    return { name, credentials: basic(name, PASSWORD) }
  }

  test('started at once they make one first administrator, and each takes the tokens and uploads of the other', async () => {
    const { items } = await one.administer('GET', '/users')
    assert.deepEqual(
      (items as { name: string }[]).map(({ name }) => name),
      ['admin'],
    )
    const token = `Bearer ${await fetchToken(one.url, [SCOPE], basic('admin', PASSWORD))}`
    const location = await beginUpload(two, token)
    assert.equal((await ask(one, 'GET', location)).status, 204)
  })

  const ends: Readonly<Record<string, (name: string) => Promise<unknown>>> = {
    'disabling a user': name => one.administer('PATCH', `/users/${name}`, { disabled: true }),
    'deleting a user': name => one.administer('DELETE', `/users/${name}`),
    'changing a password': name => one.administer('PUT', `/users/${name}/password`, { password: `not ${PASSWORD}` }),
  }
  for (const [what, end] of Object.entries(ends)) {
    test(`${what} in one ends its tokens, password and uploads in both (RFC 7009 section 2)`, async () => {
      const { name, credentials } = await makeUser()
      const token = `Bearer ${await fetchToken(two.url, [SCOPE], credentials)}`
      // Both have looked at the user, and remember it.
      const locations = await Promise.all([beginUpload(one, token), beginUpload(two, token)])
      await Promise.all([beginUpload(one, credentials), beginUpload(two, credentials)])
      await end(name)
      await ended([token, credentials], locations)
    })
  }

  test('deleting a personal token in one ends what was fetched by it in both', async () => {
    const { name } = await makeUser()
    const { secret } = await one.administer('POST', '/tokens', { user: name, name: 'laptop' })
    const credentials = basic(name, String(secret))
    const token = `Bearer ${await fetchToken(two.url, [SCOPE], credentials)}`
    const locations = await Promise.all([beginUpload(one, token), beginUpload(two, token)])
    await one.administer('DELETE', `/tokens/laptop?user=${name}`)
    await ended([token, credentials], locations)
  })

  test('a robot that ends is refused by both', async () => {
    const { name, secret } = await one.administer('POST', '/robots', { name: 'ends', grants: GRANTS })
    const credentials = basic(String(name), String(secret))
    const token = `Bearer ${await fetchToken(two.url, [SCOPE], credentials)}`
    const locations = await Promise.all([beginUpload(one, token), beginUpload(two, token)])
    await one.administer('PATCH', '/robots/ends', { expiresAt: new Date(Date.now() - 1_000).toISOString() })
    await ended([token, credentials], locations)
  })

  /** Waits until both refuse what was shown before, and sees that uploads do not outlive it. */
  async function ended(shown: readonly string[], locations: readonly string[]): Promise<void> {
    for (const server of [one, two]) {
      for (const authorization of shown) {
        await until(`${authorization.split(' ')[0]} is refused`, async () => {
          const { status } = await ask(server, 'POST', '/v2/team/app/blobs/uploads/', authorization)
          return status === 401
        })
      }
      for (const location of locations) assert.equal((await ask(server, 'GET', location)).status, 401)
    }
  }
})
