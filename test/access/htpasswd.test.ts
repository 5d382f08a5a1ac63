import assert from 'node:assert/strict'
import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import bcrypt from 'bcrypt'
import { type AccessServer, PASSWORD, basic, fetchToken, startAccessServer } from '../support/access.ts'
import { until } from '../support/clients.ts'
import { startServer } from '../support/server.ts'

const OLD = await bcrypt.hash(PASSWORD, 4)
const NEW_PASSWORD = 'another password of the tests'
const NEW = await bcrypt.hash(NEW_PASSWORD, 4)

let directory: string
let path: string
let server: AccessServer

/** Puts a file in place the way a secret of Kubernetes changes: the link to its directory is swapped. */
async function put(content: string): Promise<void> {
  const version = await mkdtemp(join(directory, 'version-'))
  await writeFile(join(version, 'htpasswd'), content)
  await symlink(version, join(directory, 'next'))
  await rename(join(directory, 'next'), join(directory, 'data'))
}

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'berth-test-htpasswd-'))
  path = join(directory, 'htpasswd')
  await put(`alice:${OLD}\nBob:${OLD}\nadmin:${NEW}\ncarol:${OLD}\n`)
  await symlink('data/htpasswd', path)
  server = await startAccessServer({
    BERTH_AUTH_HTPASSWD: path,
    // These tests try a password until it is right.
    BERTH_AUTH_GUESSES_PER_ACCOUNT: '10000',
    BERTH_AUTH_GUESSES_PER_ADDRESS: '100000',
  })
})

after(async () => {
  await server?.stop()
  await rm(directory, { recursive: true, force: true })
})

const scope = 'repository:team/app:pull,push'
const login = async (name: string, password: string): Promise<string> =>
  await fetchToken(server.url, [scope], basic(name, password))
const tags = async (token: string): Promise<number> =>
  (await fetch(`${server.url}/v2/team/app/tags/list`, { headers: { Authorization: `Bearer ${token}` } })).status

void suite('users of an htpasswd file', () => {
  test('can be granted something before they first log in, and log in by its bcrypt hash', async () => {
    const subject = { kind: 'principal', name: 'alice' }
    await server.administer('POST', '/grants', { subject, pattern: 'team/**', actions: ['push'] })
    // 404: what is not there may be pulled.
    assert.equal(await tags(await login('alice', PASSWORD)), 404)
    assert.equal(await tags(await login('Bob', PASSWORD)), 401)
    await assert.rejects(login('alice', NEW_PASSWORD), /401.*wrong name or password/)
    const users = (await server.administer('GET', '/users')) as { items: { name: string; external: string | null }[] }
    assert.deepEqual(
      users.items.map(({ name, external }) => [name, external]),
      [
        ['Bob', 'htpasswd'],
        ['admin', null],
        ['alice', 'htpasswd'],
        ['carol', 'htpasswd'],
      ],
    )
  })

  test('do not become somebody who is here already', async () => {
    await assert.rejects(login('admin', NEW_PASSWORD), /401/)
    await login('admin', PASSWORD)
    assert.ok(server.log.some(line => String(line['msg']).includes('belong to others here')))
  })

  test('are disabled here like others, and have their password in the file alone', async () => {
    await server.administer('PATCH', '/users/Bob', { disabled: true })
    await assert.rejects(login('Bob', PASSWORD), /Bob is disabled/)
    await assert.rejects(
      server.administer('PUT', '/users/Bob/password', { password: NEW_PASSWORD }),
      /the password of Bob stands in the htpasswd file/,
    )
  })

  test('come back without their grants where they were deleted here and still stand in the file', async () => {
    await server.administer('DELETE', '/users/carol')
    assert.equal(await tags(await login('carol', PASSWORD)), 401)
  })

  test('are taken anew when the file changes; who is not in it any more loses tokens of every kind', async () => {
    const token = await login('alice', PASSWORD)
    const made = await server.administer('POST', '/tokens', { name: 'laptop', user: 'alice' })
    const laptop = String(made['secret'])
    assert.equal(await tags(await login('alice', laptop)), 404)
    await put(`dave:${NEW}\n`)
    await until('the token is refused', async () => (await tags(token)) === 401)
    await login('dave', NEW_PASSWORD)
    await assert.rejects(login('alice', laptop), /alice may not log in any more/)
    await assert.rejects(login('alice', PASSWORD), /401/)
  })

  test('end every session of theirs where their password changes in the file', async () => {
    await put(`dave:${NEW}\nerin:${OLD}\n`)
    const logsIn = async (name: string, password: string): Promise<boolean> =>
      await login(name, password).then(
        () => true,
        () => false,
      )
    // Not by trying to log in: wrong guesses are counted.
    await until('erin is there', async () => {
      const { items } = await server.administer('GET', '/users')
      return (items as { name: string }[]).some(({ name }) => name === 'erin')
    })
    const subject = { kind: 'principal', name: 'erin' }
    await server.administer('POST', '/grants', { subject, pattern: 'team/**', actions: ['push'] })
    const token = await login('erin', PASSWORD)
    const begun = await fetch(`${server.url}/v2/team/app/blobs/uploads/`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${token}` },
    })
    assert.equal(begun.status, 202)
    const location = new URL(begun.headers.get('location') ?? '', server.url)
    await put(`dave:${NEW}\nerin:${NEW}\n`)
    await until('the token is refused', async () => (await tags(token)) === 401)
    assert.equal((await fetch(location, { method: 'PATCH', body: 'x' })).status, 401)
    assert.equal(await logsIn('erin', PASSWORD), false)
    assert.equal(await tags(await login('erin', NEW_PASSWORD)), 200)
  })

  test('stay where the new file is broken or gone, which is logged once', async () => {
    const failures = (): number =>
      server.log.filter(line => String(line['msg']).includes('auth.htpasswd cannot be used')).length
    await put('dave:plain\n')
    await until('the broken file is seen', async () => failures() === 1)
    await login('dave', NEW_PASSWORD)
    await rm(join(directory, 'data'))
    await until('the missing file is seen', async () => failures() === 2)
    await login('dave', NEW_PASSWORD)
    await put(`dave:${OLD}\n`)
    const isNew = async (): Promise<boolean> =>
      await login('dave', PASSWORD).then(
        () => true,
        () => false,
      )
    await until('the new file is taken', isNew)
    assert.equal(failures(), 2)
  })
})

test('a start with an htpasswd file that cannot be used ends with the lines that are wrong', async () => {
  const bad = join(directory, 'bad')
  await mkdir(directory, { recursive: true })
  await writeFile(bad, 'alice:$apr1$x$y\n')
  await assert.rejects(
    startServer({ env: { BERTH_AUTH_MODE: 'token', BERTH_AUTH_HTPASSWD: bad } }),
    /auth\.htpasswd: line 1 has no bcrypt hash for alice/,
  )
})
