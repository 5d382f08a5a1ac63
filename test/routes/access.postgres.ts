import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import bcrypt from 'bcrypt'
import { type AccessServer, PASSWORD, basic, fetchToken, startAccessServer } from '../support/access.ts'
import { until } from '../support/clients.ts'
import { type TestDatabase, createDatabase } from '../support/server.ts'

const SCOPE = 'repository:team/app:pull,push'
const NEW_PASSWORD = `another ${PASSWORD}`
const OLD = await bcrypt.hash(PASSWORD, 4)
const NEW = await bcrypt.hash(NEW_PASSWORD, 4)
const GRANTS = [{ pattern: 'team/app', actions: ['push'] }]

void suite('logins of two processes on one Postgres', () => {
  let database: TestDatabase
  let dataDir: string
  let one: AccessServer
  let two: AccessServer
  let count = 0

  /** Each process has a file of its own, because nobody knows which one reads a change first. */
  const htpasswd = (process: string): string => join(dataDir, `htpasswd-${process}`)
  const start = async (process: string): Promise<AccessServer> => {
    await writeFile(htpasswd(process), `filed:${OLD}\nleaver:${OLD}\nstays:${OLD}\n`)
    const env = { BERTH_AUTH_REVOCATION_MAX_AGE: '1s', BERTH_AUTH_HTPASSWD: htpasswd(process) }
    return await startAccessServer(env, { databaseUrl: database.url, dataDir })
  }
  before(async () => {
    const made = await createDatabase()
    assert.ok(made !== undefined, 'BERTH_TEST_POSTGRES names no server: run npm run test:postgres')
    database = made
    dataDir = await mkdtemp(join(tmpdir(), 'berth-logins-'))
    ;[one, two] = await Promise.all([start('one'), start('two')])
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
      (items as { name: string; external: string | null }[]).flatMap(({ name, external }) => external ?? name),
      ['admin', 'htpasswd', 'htpasswd', 'htpasswd'],
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

  test('a password that changed, and a user who is gone, in the htpasswd file that one has read ends both in both', async () => {
    const loginOf = async (name: string, password = PASSWORD): Promise<string> =>
      `Bearer ${await fetchToken(two.url, [SCOPE], basic(name, password))}`
    for (const name of ['filed', 'leaver', 'stays']) {
      await one.administer('POST', '/grants', { subject: { kind: 'principal', name }, ...GRANTS[0] })
    }
    const tokens = await Promise.all([loginOf('filed'), loginOf('leaver')])
    const other = await loginOf('stays')
    const locations = await Promise.all([one, two].flatMap(server => tokens.map(token => beginUpload(server, token))))
    await writeFile(htpasswd('one'), `filed:${NEW}\nstays:${OLD}\n`)
    // The other process has the former file, and takes its passwords no more all the same.
    await ended([...tokens, basic('filed', PASSWORD), basic('leaver', PASSWORD)], locations)
    await beginUpload(two, other)
    await writeFile(htpasswd('two'), `filed:${NEW}\nstays:${OLD}\n`)
    // Not by trying to log in: wrong guesses are counted.
    await until('the other process has read it', async () =>
      two.log.some(line => String(line['msg']).includes('auth.htpasswd was read again')),
    )
    await loginOf('filed', NEW_PASSWORD)
    // What was issued since by the first was not ended by the second, which read the same change.
    await beginUpload(two, other)
  })

  test('a secret that was replaced ends in both with what it got, and no other login does', async () => {
    const { name, credentials } = await makeUser()
    const { secret } = await one.administer('POST', '/tokens', { user: name, name: 'turned' })
    const shown = basic(name, String(secret))
    const token = `Bearer ${await fetchToken(two.url, [SCOPE], shown)}`
    const other = `Bearer ${await fetchToken(two.url, [SCOPE], credentials)}`
    const locations = await Promise.all([beginUpload(one, token), beginUpload(two, token)])
    await one.administer('POST', '/tokens/turned/secrets', { user: name, overlapSeconds: 0 })
    await ended([token, shown], locations)
    for (const server of [one, two]) await beginUpload(server, other)
  })

  test('a grant that is taken back ends the uploads it allowed, in both', async () => {
    const { name, credentials } = await makeUser()
    const locations = await Promise.all([beginUpload(one, credentials), beginUpload(two, credentials)])
    const { items } = await one.administer('GET', `/grants?principal=${name}`)
    await one.administer('DELETE', `/grants/${(items as { id: number }[])[0]?.id}`)
    await ended([credentials], locations)
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
