import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { type AccessServer, PASSWORD, basic, startAccessServer } from '../support/access.ts'
import { type CommandOptions, type Ended, berth } from '../support/command.ts'

/** EX_USAGE of sysexits.h. */
const USAGE = 64
const NEW_PASSWORD = `another ${PASSWORD}`

let server: AccessServer
let work: string
before(async () => {
  work = await mkdtemp(join(tmpdir(), 'berth-test-words-'))
  server = await startAccessServer()
})
after(async () => {
  await server.stop()
  await rm(work, { recursive: true, force: true })
})

const local = async (args: readonly string[], options: CommandOptions = {}): Promise<Ended> =>
  await berth(args, { cwd: work, env: { BERTH_DATA_DIR: server.dataDir }, ...options })
const remote = async (args: readonly string[], token: string): Promise<Ended> =>
  await berth([...args, '--server', server.url], { cwd: work, env: { BERTH_TOKEN: token } })
const login = async (name: string, password: string): Promise<number> =>
  (await fetch(`${server.url}/token`, { headers: { Authorization: basic(name, password) } })).status

void suite('secrets of the berth command', () => {
  test('a password comes from standard input, and is nowhere in what is printed', async () => {
    const { code, stdout, stderr } = await local(['user', 'add', 'erin'], { input: `${PASSWORD}\n` })
    assert.equal(code, 0, stderr)
    assert.equal(stdout, 'user erin was added\n')
    assert.ok(!stderr.includes(PASSWORD))
    assert.equal(await login('erin', PASSWORD), 200)
    const reset = await local(['user', 'password', 'erin'], { input: NEW_PASSWORD })
    assert.equal(reset.code, 0, reset.stderr)
    assert.deepEqual([await login('erin', PASSWORD), await login('erin', NEW_PASSWORD)], [401, 200])
  })

  test('without one nothing is added', async () => {
    const { code, stderr } = await local(['user', 'add', 'frank'])
    assert.equal(code, USAGE)
    assert.match(stderr, /password of frank: nothing was given on standard input/)
    assert.equal(await login('frank', ''), 401)
  })

  test('from elsewhere a password does as well, and gets a token', async () => {
    await server.administer('POST', '/users', { name: 'ivan', password: PASSWORD })
    const byPassword = async (input: string): Promise<Ended> =>
      await berth(['token', 'create', 'laptop', '--server', server.url, '--login', 'ivan'], { cwd: work, input })
    const wrong = await byPassword('not the password')
    assert.deepEqual([wrong.code, wrong.stderr], [1, 'berth token: wrong name or password\n'])
    const { code, stdout, stderr } = await byPassword(PASSWORD)
    assert.equal(code, 0, stderr)
    const secret = stdout.trim().split('\n').at(-1) ?? ''
    assert.equal((await remote(['token', 'list'], secret)).code, 0)
    assert.equal((await local(['token', 'list', '--login', 'ivan'])).code, USAGE)
  })

  test('users set their own password from elsewhere by showing the current one first', async () => {
    await server.administer('POST', '/users', { name: 'grace', password: PASSWORD })
    const set = async (...lines: string[]): Promise<Ended> =>
      await berth(['user', 'password', 'grace', '--current', '--server', server.url, '--login', 'grace'], {
        cwd: work,
        input: [PASSWORD, ...lines].join('\n'),
      })
    const wrong = await set('not the current one', NEW_PASSWORD)
    assert.equal(wrong.code, 1)
    assert.equal(wrong.stderr, 'berth user: the current password is wrong\n')
    assert.equal((await set(PASSWORD)).code, USAGE)
    assert.equal((await set(PASSWORD, NEW_PASSWORD)).code, 0)
    assert.deepEqual([await login('grace', PASSWORD), await login('grace', NEW_PASSWORD)], [401, 200])
  })

  test('an identity token is explained claim by claim and never leaves the machine', async () => {
    const issuer = 'https://gitlab.example'
    const rule = ['trust', 'add', 'web', '--issuer', issuer, '--audience', 'registry.example', '--grant', 'push:ci/web']
    const added = await local([...rule, '--claim', 'project_id=42', '--claim', 'ref_protected=true'])
    assert.equal(added.code, 0, added.stderr)
    const encode = (part: object): string => Buffer.from(JSON.stringify(part)).toString('base64url')
    const claims = { iss: issuer, aud: 'registry.example', project_id: '42', ref_protected: 'false' }
    const token = `${encode({ alg: 'RS256', kid: 'k' })}.${encode(claims)}.c2lnbmF0dXJl`
    const { code, stdout } = await local(['trust', 'test'], { input: `${token}\n` })
    assert.equal(code, 0)
    assert.match(stdout, /^web does not fit\nCLAIM +EXPECTED +ACTUAL +MATCHES\n/)
    assert.match(stdout, /\nproject_id +42 +42 +true\n/)
    assert.match(stdout, /\nref_protected +true +false +false\n/)
    const main = { ...claims, ref_protected: 'true' }
    const fitting = `${encode({ alg: 'RS256', kid: 'k' })}.${encode(main)}.c2lnbmF0dXJl`
    const taken = await local(['trust', 'test', '--user', 'web'], { input: fitting })
    assert.match(taken.stdout, /^web fits, .*; it is taken: the login names it\n/)
    const stranger = `${encode({ alg: 'RS256', kid: 'k' })}.${encode({ iss: 'https://other.example' })}.eA`
    assert.match((await local(['trust', 'test'], { input: stranger })).stdout, /^no trust rule names the issuer/)
    assert.equal((await local(['trust', 'test'], { input: 'no token' })).code, USAGE)
  })
})

void suite('words of the berth command', () => {
  test('a word too many, one that is missing and an option of another command are refused before anything is done', async () => {
    await server.administer('POST', '/users', { name: 'heidi', password: PASSWORD })
    for (const [args, why] of [
      [['user', 'delete', 'heidi', 'admin'], /user delete: admin is a word too many/],
      [['user', 'delete'], /user delete: NAME is missing/],
      [['user', 'disable', 'heidi', '--expires', '1d'], /user disable: --expires means nothing here/],
      [['explain', 'heidi', 'pull', 'x', 'y'], /explain: y is a word too many/],
      [['grant', 'add', 'heidi', 'pull'], /grant add: PATTERN is missing/],
    ] as const) {
      const { code, stdout, stderr } = await local(args)
      assert.deepEqual([code, stdout], [USAGE, ''], args.join(' '))
      assert.match(stderr, why)
      assert.match(stderr, new RegExp(`\\n {2}berth ${args[0]} `))
    }
    assert.equal(await login('heidi', PASSWORD), 200)
  })

  test('an action that is none is told in words of people, with those that are', async () => {
    const { code, stderr } = await local(['grant', 'add', 'everyone', 'pul', '**'])
    assert.equal(code, 1)
    assert.equal(stderr, 'berth grant: body.actions.0: "pul" is no action: pull, push, delete or admin is\n')
    const asked = await local(['explain', 'everyone', 'read', 'team/app'])
    assert.equal(asked.stderr, 'berth explain: query.action: "read" is no action: pull, push, delete or admin is\n')
  })

  test('explain knows everybody a grant can be given to, and robots with and without their prefix', async () => {
    const { administer } = server
    await administer('POST', '/groups', { name: 'judges' })
    const grants = [
      [{ kind: 'group', name: 'judges' }, 'delete'],
      [{ kind: 'authenticated' }, 'push'],
      [{ kind: 'anonymous' }, 'pull'],
    ] as const
    for (const [subject, action] of grants) {
      await administer('POST', '/grants', { subject, pattern: 'court/app', actions: [action] })
    }
    await administer('POST', '/robots', { name: 'clerk', grants: [{ pattern: 'court/**', actions: ['delete'] }] })
    const may = async (who: string, action: string): Promise<string> => {
      const { code, stdout, stderr } = await local(['explain', who, action, 'court/app'])
      assert.equal(code, 0, stderr)
      return stdout
    }
    assert.match(await may('group:judges', 'delete'), /^yes: .* to group judges\) allows it/)
    assert.match(await may('group:judges', 'push'), /^yes: .* to everyone who logged in\)/)
    assert.match(await may('group:judges', 'admin'), /^no: no grant to group judges allows admin/)
    assert.match(await may('everyone-logged-in', 'push'), /^yes: /)
    assert.match(await may('everyone-logged-in', 'delete'), /^no: no grant to everyone who logged in allows delete/)
    for (const who of ['anonymous', 'everyone']) {
      assert.match(await may(who, 'pull'), /^yes: /)
      assert.match(await may(who, 'push'), /^no: no grant to everyone allows push/)
    }
    for (const who of ['robot+clerk', 'clerk']) assert.match(await may(who, 'delete'), /^yes: .* to robot\+clerk\)/)
    const nobody = await local(['explain', 'group:none', 'pull', 'court/app'])
    assert.equal(nobody.stderr, 'berth explain: there is no group none\n')
  })

  test('the audit says of each detail what it is, and times with their unit', async () => {
    await server.administer('POST', '/robots', { name: 'turner', grants: [{ pattern: 'a/b', actions: ['pull'] }] })
    assert.equal((await local(['robot', 'rotate', 'turner', '--overlap', '90m'])).code, 0)
    const { stdout } = await local(['audit', 'list', '--kind', 'robot.rotate'])
    assert.match(stdout, / robot=robot\+turner overlapSeconds=5400\n/)
  })

  test('every command is told by help, of the program and of its noun', async () => {
    const { stdout } = await berth(['help'])
    for (const noun of [
      'user',
      'group',
      'robot',
      'token',
      'grant',
      'trust',
      'key',
      'audit',
      'explain',
      'repository',
      'manifest',
      'tag',
      'undelete',
      'tag-rule',
      'storage',
      'retention',
      'pulls',
      'gc',
      'verify',
      'usage',
      'quota',
    ]) {
      const own = await berth([noun, '--help'])
      assert.equal(own.code, 0)
      assert.match(own.stdout, new RegExp(`^ {2}berth ${noun}`))
      assert.ok(stdout.includes(own.stdout), noun)
      assert.deepEqual(await berth(['help', noun]), own)
    }
  })

  test('a server that cannot be reached, or an address that is none, is one line', async () => {
    const nobody = await berth(['user', 'list', '--server', 'http://127.0.0.1:1'], { env: { BERTH_TOKEN: 'x' } })
    assert.equal(nobody.code, 1)
    assert.match(nobody.stderr, /^berth user: the server does not answer \(.*ECONNREFUSED.*\)\n$/)
    const none = await berth(['user', 'list', '--server', 'registry.example'], { env: { BERTH_TOKEN: 'x' } })
    assert.equal(none.code, USAGE)
    assert.match(none.stderr, /--server registry\.example: write https:\/\/registry\.example/)
  })

  test('the audit shows as many entries as are asked for, newest first', async () => {
    const { stdout } = await local(['audit', '--kind', 'user.create', '--limit', '2', '--json'])
    const entries = JSON.parse(stdout) as { id: number; kind: string; actor: string; client: string }[]
    assert.equal(entries.length, 2)
    assert.ok(entries.every(({ kind }) => kind === 'user.create'))
    assert.deepEqual([entries[0]?.actor, entries[0]?.client], ['local administrator', 'socket'])
    assert.ok((entries[0]?.id ?? 0) > (entries[1]?.id ?? 0))
  })
})

test('principals can be prepared while everything is still open to everyone', async () => {
  const open = await startAccessServer({ BERTH_AUTH_MODE: 'open' })
  try {
    const env = { BERTH_DATA_DIR: open.dataDir }
    assert.equal((await berth(['user', 'add', 'early', '--generate'], { env })).code, 0)
    assert.match((await berth(['user', 'list'], { env })).stdout, /\nearly /)
    assert.equal((await fetch(`${open.url}/api/v1/users`)).status, 404)
  } finally {
    await open.stop()
  }
})
