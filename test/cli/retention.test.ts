import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { type Ended, berth } from '../support/command.ts'
import { manifestOf, pushBlob, putManifest, sha256 } from '../support/push.ts'
import { type TestServer, createDatabase, startServer } from '../support/server.ts'

/** EX_USAGE of sysexits.h. */
const USAGE = 64

void suite('berth retention', () => {
  let server: TestServer
  let work: string

  before(async () => {
    work = await mkdtemp(join(tmpdir(), 'berth-test-retention-'))
    server = await startServer({ env: { BERTH_REGISTRY_PULL_COUNT_INTERVAL: '1h' } })
  })
  after(async () => {
    await server.stop()
    await rm(work, { recursive: true, force: true })
  })

  const local = async (...args: string[]): Promise<Ended> =>
    await berth(args, { cwd: work, env: { BERTH_DATA_DIR: server.dataDir } })
  const said = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await local(...args)
    assert.equal(code, 0, `${args.join(' ')}: ${stderr}`)
    return stdout
  }
  const refused = async (code: number, ...args: string[]): Promise<string> => {
    const ended = await local(...args)
    assert.equal(ended.code, code, `${args.join(' ')}: ${ended.stderr}`)
    return ended.stderr
  }
  async function push(repository: string, ...tags: string[]): Promise<void> {
    const config = Buffer.from(JSON.stringify({ repository }))
    await pushBlob(server.url, repository, config)
    for (const tag of tags) {
      const body = manifestOf(config, [], { annotations: { tag } })
      assert.equal((await putManifest(server.url, repository, tag, body)).status, 201)
    }
  }
  const tagsOf = async (repository: string): Promise<readonly string[]> =>
    ((await (await fetch(`${server.url}/v2/${repository}/tags/list`)).json()) as { tags: string[] }).tags

  test('a plan shows each tag with its verdict, rule and reason, and is carried out when it is confirmed', async () => {
    await push('cli/plan', '1.0.0', '1.1.0', '1.2.0', 'pr-1')
    assert.match(
      await said(
        'retention',
        'set',
        'plan',
        '--repositories',
        'cli/plan',
        '--keep',
        'versions 2',
        '--keep',
        'all of pr-*',
      ),
      /berth retention plan plan/,
    )
    const plan = await said('retention', 'plan', 'plan', '--all')
    assert.match(plan, /^REPOSITORY +NAME +VERDICT +RULE +REASON\n/)
    assert.match(plan, /^cli\/plan +1\.0\.0 +goes +- +no rule keeps it: /m)
    assert.match(plan, /^cli\/plan +1\.1\.0 +stays +1 +versions 2: version 2 from the highest$/m)
    assert.match(plan, /^cli\/plan +pr-1 +stays +2 +all of pr-\*: /m)
    assert.match(plan, /1 of 4 tags go; 0 removed/)
    assert.equal((await tagsOf('cli/plan')).length, 4)
    const [, run = ''] = /berth retention confirm (\d+)/.exec(plan) ?? []
    assert.match(await said('retention', 'confirm', run), /^cli\/plan +1\.0\.0 +removed/m)
    assert.deepEqual(await tagsOf('cli/plan'), ['1.1.0', '1.2.0', 'pr-1'])
    assert.match(await refused(1, 'retention', 'confirm', run), /asks nothing/)
  })

  test('a run that would remove more than the share of a repository asks, unless --yes is said', async () => {
    await push('cli/share', 'a', 'b', 'c')
    await said('retention', 'set', 'share', '--repositories', 'cli/share', '--keep', 'all of a')
    const asks = await said('retention', 'run', 'share')
    assert.match(asks, /cli\/share would lose 2 of 3 tags, more than the policy's share/)
    assert.equal((await tagsOf('cli/share')).length, 3)
    assert.match(await said('retention', 'run', 'share', '--yes'), /2 removed/)
    assert.deepEqual(await tagsOf('cli/share'), ['a'])
  })

  test('a plan of a policy that was changed since is not carried out', async () => {
    await push('cli/changed', 'a', 'b')
    const set = (rule: string): Promise<string> =>
      said('retention', 'set', 'changed', '--repositories', 'cli/changed', '--keep', rule)
    await set('all of a')
    const { id } = JSON.parse(await said('retention', 'plan', 'changed', '--json')) as { id: number }
    await set('all of b')
    assert.match(await refused(1, 'retention', 'confirm', String(id)), /was changed since this plan/)
    assert.equal((await tagsOf('cli/changed')).length, 2)
  })

  test('policies and runs are listed, and a policy that is removed leaves its runs', async () => {
    const schedule = ['--schedule', '0 3 * * *', '--time-zone', 'Europe/Berlin']
    const keep = ['--keep', 'pulled within 30d', '--keep', 'newest 3 of main-*']
    assert.match(
      await said(
        'retention',
        'set',
        'listed',
        '--repositories',
        'cli/**',
        '--tag',
        'x-*',
        '--tag',
        'main-*',
        ...keep,
        ...schedule,
      ),
      /runs next at \d{4}-/,
    )
    assert.match(
      await said('retention', 'list'),
      /^listed +cli\/\*\* +x-\*,main-\* +pulled within 30d; newest 3 of main-\* +false +30 +0 3 \* \* \* +Europe\/Berlin +\d{4}-/m,
    )
    const { id } = JSON.parse(await said('retention', 'plan', 'listed', '--json')) as { id: number }
    await said('retention', 'remove', 'listed')
    assert.doesNotMatch(await said('retention', 'list'), /^listed/m)
    assert.match(await said('retention', 'runs', '--policy', 'listed'), new RegExp(`^${id} +listed +plan`, 'm'))
    assert.match(await said('retention', 'show', String(id)), /of listed: /)
    assert.match(await refused(1, 'retention', 'plan', 'listed'), /no retention policy listed/)
    assert.match(await said('audit', 'list', '--kind', 'retention.policy.delete'), /listed/)
  })

  test('what makes no sense is refused with what would', async () => {
    const set = ['retention', 'set', 'wrong', '--repositories', 'cli/**']
    assert.match(await refused(USAGE, ...set, '--keep', 'the best'), /newest 10/)
    assert.match(await refused(USAGE, ...set, '--keep', 'all', '--max-share', 'much'), /from 0 to 100/)
    assert.match(await refused(1, ...set), /body\.rules/)
    assert.match(await refused(1, ...set, '--keep', 'all of /(/'), /pattern of tags/)
    assert.match(await refused(1, ...set, '--keep', 'all', '--schedule', 'daily'), /five fields/)
    assert.match(await refused(1, ...set, '--keep', 'all', '--time-zone', 'Moon/Sea'), /time zone/)
  })

  test('pulls that were counted and not yet written are written when the registry ends', async () => {
    const dataDir = join(work, 'data')
    const database = await createDatabase()
    const place = { dataDir, ...(database === undefined ? {} : { databaseUrl: database.url }) }
    const config = Buffer.from('{}')
    const first = await startServer({ ...place, env: { BERTH_REGISTRY_PULL_COUNT_INTERVAL: '1h' } })
    await pushBlob(first.url, 'cli/pulled', config)
    assert.equal((await putManifest(first.url, 'cli/pulled', 'v1', manifestOf(config, []))).status, 201)
    for (let pull = 0; pull < 3; pull++) {
      assert.equal((await fetch(`${first.url}/v2/cli/pulled/manifests/v1`)).status, 200)
    }
    // By tag a HEAD counts as well, by digest it does not.
    for (const reference of ['v1', sha256(manifestOf(config, []))]) {
      const { status } = await fetch(`${first.url}/v2/cli/pulled/manifests/${reference}`, { method: 'HEAD' })
      assert.equal(status, 200)
    }
    await first.stop()
    const second = await startServer(place)
    const { stdout } = await berth(['pulls', 'cli/pulled'], { cwd: work, env: { BERTH_DATA_DIR: dataDir } })
    await second.stop()
    await database?.drop()
    assert.match(stdout, /^v1 +4 +\d{4}-/m)
  })
})
