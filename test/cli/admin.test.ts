import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { type AccessServer, basic, startAccessServer } from '../support/access.ts'
import { type Ended, berth } from '../support/command.ts'

/** EX_USAGE of sysexits.h. */
const USAGE = 64

void suite('the berth command administers the running server of a data directory', () => {
  let server: AccessServer
  let work: string

  before(async () => {
    work = await mkdtemp(join(tmpdir(), 'berth-test-admin-'))
    server = await startAccessServer()
  })
  after(async () => {
    await server.stop()
    await rm(work, { recursive: true, force: true })
  })

  const local = async (...args: string[]): Promise<Ended> =>
    await berth(args, { cwd: work, env: { BERTH_DATA_DIR: server.dataDir } })

  /** What a command prints that has to succeed. */
  const said = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await local(...args)
    assert.equal(code, 0, `${args.join(' ')}: ${stderr}`)
    return stdout
  }
  const json = async (...args: string[]): Promise<unknown> => JSON.parse(await said(...args, '--json'))
  const secretIn = (text: string): string => text.trim().split('\n').at(-1) ?? ''
  const login = async (name: string, secret: string): Promise<number> =>
    (await fetch(`${server.url}/token`, { headers: { Authorization: basic(name, secret) } })).status

  test('a user is added with a password shown once, granted, explained, disabled and deleted', async () => {
    const password = secretIn(await said('user', 'add', 'alice', '--generate'))
    assert.equal(await login('alice', password), 200)
    assert.match(await said('explain', 'alice', 'push', 'team/app'), /^no: no grant to user alice allows push/)
    const granted = await said('grant', 'add', 'alice', 'push', 'team/**')
    const id = /^grant (\d+): alice may push on team\/\*\*\n$/.exec(granted)?.[1] ?? ''
    assert.match(await said('explain', 'alice', 'push', 'team/app'), new RegExp(`^yes: grant ${id} `))
    assert.match(await said('explain', 'everyone', 'pull', 'team/app'), /^no: /)
    await said('grant', 'remove', id)
    assert.match(await said('explain', 'alice', 'push', 'team/app'), /^no: /)
    await said('user', 'disable', 'alice')
    assert.equal(await login('alice', password), 401)
    await said('user', 'enable', 'alice')
    assert.equal(await login('alice', password), 200)
    await said('user', 'delete', 'alice')
    assert.equal(await login('alice', password), 401)
  })

  test('a robot is created with its grants, logs in, is rotated and listed', async () => {
    const made = (await json('robot', 'create', 'ci.web', '--grant', 'pull,push:team/web', '--expires', '90d')) as {
      name: string
      secret: string
    }
    assert.equal(made.name, 'robot+ci.web')
    assert.equal(await login(made.name, made.secret), 200)
    assert.match(await said('explain', made.name, 'push', 'team/web'), /^yes: /)
    const rotated = secretIn(await said('robot', 'rotate', 'ci.web', '--overlap', '1h'))
    assert.deepEqual([await login(made.name, made.secret), await login(made.name, rotated)], [200, 200])
    const rows = (await json('robot', 'list')) as { name: string; expiresAt: string }[]
    assert.deepEqual(
      rows.map(({ name }) => name),
      ['robot+ci.web'],
    )
    assert.ok(Date.parse(rows[0]?.expiresAt ?? '') > Date.now() + 89 * 86_400_000)
  })

  test('a token is made for a user, does instead of the password, and its secret is in no list', async () => {
    await said('user', 'add', 'bob', '--generate')
    const secret = secretIn(await said('token', 'create', 'laptop', '--user', 'bob', '--scope', 'pull:team/**'))
    assert.match(secret, /^berth_pat_/)
    assert.equal(await login('bob', secret), 200)
    const list = await said('token', 'list', '--user', 'bob')
    assert.match(list, /laptop/)
    assert.ok(!list.includes(secret))
    await said('token', 'delete', 'laptop', '--user', 'bob')
    assert.equal(await login('bob', secret), 401)
  })

  test('a group passes its grants on to its members', async () => {
    await said('user', 'add', 'carol', '--generate')
    await said('group', 'add', 'builders')
    await said('group', 'join', 'builders', 'carol')
    await said('grant', 'add', 'group:builders', 'push', 'team/**')
    assert.match(await said('explain', 'carol', 'push', 'team/app'), /^yes: .*group builders/)
  })

  test('tables are for people and --json for programs', async () => {
    assert.match(await said('user', 'list'), /^NAME +ACTIVE +EXPIRES +LAST USED +CREATED +CREATED BY +EXTERNAL\n/)
    const users = (await json('user', 'list')) as { name: string }[]
    assert.ok(users.some(({ name }) => name === 'admin'))
    const decision = (await json('explain', 'admin', 'delete', 'any/thing')) as { allowed: boolean }
    assert.equal(decision.allowed, true)
  })

  test('keys are listed and rotated, and what was done is in the audit', async () => {
    const before = (await json('key', 'list')) as { kid: string; state: string }[]
    assert.match(await said('key', 'rotate'), /stay good/)
    const after = (await json('key', 'list')) as { kid: string; state: string }[]
    const signing = (keys: typeof before): string | undefined => keys.find(key => key.state === 'signing')?.kid
    assert.notEqual(signing(after), signing(before))
    assert.match(await said('audit', 'list', '--kind', 'key.rotate'), /key\.rotate/)
  })

  test('a refusal is one line that says why, and ends with 1', async () => {
    await said('user', 'add', 'dave', '--generate')
    for (const [args, why] of [
      [['user', 'add', 'dave', '--generate'], /dave/],
      [['user', 'disable', 'nobody-of-that-name'], /nobody-of-that-name/],
      [['grant', 'add', 'nobody-of-that-name', 'pull', '**'], /nobody-of-that-name/],
      [['grant', 'add', 'dave', 'pull', 'NOT A PATTERN'], /pattern/],
      [['user', 'delete', 'admin'], /administer/],
    ] as const) {
      const { code, stdout, stderr } = await local(...args)
      assert.equal(code, 1, args.join(' '))
      assert.equal(stdout, '')
      assert.match(stderr, why)
      assert.equal(stderr.trimEnd().split('\n').length, 1, stderr)
    }
  })

  test('wrong words end with EX_USAGE of sysexits.h and say what is right', async () => {
    for (const args of [
      ['user', 'ad', 'x'],
      ['user', 'add', '--generate'],
      ['grant', 'add', 'alice'],
      ['explain', 'alice'],
      ['robot', 'create', 'x', '--grant', 'no-colon'],
      ['robot', 'create', 'x', '--grant', 'pull:a', '--expires', 'soon'],
      ['user', 'list', '--no-such-option'],
    ]) {
      const { code, stdout, stderr } = await local(...args)
      assert.equal(code, USAGE, `${args.join(' ')}: ${stderr}`)
      assert.equal(stdout, '')
      assert.doesNotMatch(stderr, /\n\s+at /)
    }
  })

  test('without a running server it says what to do', async () => {
    const { code, stderr } = await berth(['user', 'list'], { cwd: work, env: { BERTH_DATA_DIR: join(work, 'none') } })
    assert.equal(code, 1)
    assert.match(stderr, /no server runs on .*none: start it with berth serve/)
  })

  test('from elsewhere it goes by --server and a token, and can do what that token may', async () => {
    const secret = secretIn(await said('token', 'create', 'remote', '--user', 'admin'))
    const file = join(work, 'token')
    await writeFile(file, `${secret}\n`)
    const remote = async (env: Readonly<Record<string, string>>, ...args: string[]): Promise<Ended> =>
      await berth([...args, '--server', server.url], { cwd: work, env })
    const listed = await remote({ BERTH_TOKEN: secret }, 'user', 'list')
    assert.match(listed.stdout, /^admin /m)
    assert.equal((await remote({}, 'user', 'list', '--token-file', file)).code, 0)
    const without = await remote({}, 'user', 'list')
    assert.equal(without.code, 1)
    assert.match(without.stderr, /BERTH_TOKEN or --token-file/)
    const wrong = await remote({ BERTH_TOKEN: `${secret.slice(0, -1)}!` }, 'user', 'list')
    assert.equal(wrong.code, 1)
    assert.ok(!wrong.stderr.includes(secret.slice(0, -1)))
  })
})
