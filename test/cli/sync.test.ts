import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { RegistryClient } from '../support/client.ts'
import { type Ended, berth } from '../support/command.ts'
import { type TestServer, startServer } from '../support/server.ts'
import { syncsOf } from '../support/sync.ts'

void suite('berth sync', () => {
  let origin: TestServer
  let server: TestServer
  let upstream: RegistryClient

  before(async () => {
    origin = await startServer()
    upstream = new RegistryClient(origin.url)
    const common = { direction: 'pull', url: origin.url, allowPrivate: true, addPrefix: 'copy' }
    server = await startServer({
      env: syncsOf({
        nightly: { ...common, repositories: ['team/*'], schedule: '0 3 * * *', timeZone: 'Europe/Berlin' },
        missing: { ...common, repositories: ['nobody/none'] },
      }),
    })
    await upstream.pushImage('team/app', 'v1')
  })
  after(async () => {
    await server.stop()
    await origin.stop()
  })

  const local = async (...args: string[]): Promise<Ended> =>
    await berth(['sync', ...args], { env: { BERTH_DATA_DIR: server.dataDir } })
  const said = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await local(...args)
    assert.equal(code, 0, `${args.join(' ')}: ${stderr}`)
    return stdout
  }

  test('lists syncs with when they run next', async () => {
    const list = await said('list')
    assert.match(list, /^NAME +DIRECTION +URL +REPOSITORIES +SCHEDULE +TIME ZONE +NEXT RUN +LAST RUN\n/)
    assert.match(list, /^nightly +pull +http\S+ +team\/\* +0 3 \* \* \* +Europe\/Berlin/m)
  })

  test('shows what a run would do, then does it, then has nothing to do', async () => {
    assert.match(await said('run', 'nightly', '--dry-run'), /^team\/app +v1 +copy\/team\/app +to-copy +0 +it is new$/m)
    const done = await said('run', 'nightly')
    assert.match(done, /^team\/app +v1 +copy\/team\/app +copied +2 /m)
    assert.match(done, /is done\nof 1 images: 1 copied, 0 up to date; 2 B moved\n$/)
    assert.match(await said('run', 'nightly'), /of 1 images: 0 copied, 1 up to date; 0 B moved\n$/)
    const { items } = JSON.parse(await said('show', '2', '--json')) as { items: readonly { outcome: string }[] }
    assert.deepEqual(
      items.map(({ outcome }) => outcome),
      ['copied'],
    )
    assert.match(await said('runs', 'nightly'), /^3 +nightly +false +done +1 +0 +1 /m)
  })

  test('ends with an error and the reason where an image or repository failed', async () => {
    const { code, stderr } = await local('run', 'missing')
    assert.equal(code, 1)
    assert.match(stderr, /nobody\/none +- +copy\/nobody\/none +failed +0 +\S+ answered 404/)
    assert.match(await said('status', 'missing'), /0 copied, 0 up to date, 1 failed/)
  })

  test('says what to do where nothing runs, or there is no such sync', async () => {
    for (const [args, expected] of [
      [['run', 'nobody'], /there is no sync nobody/],
      [['stop', 'nightly'], /there is no run of sync nightly under way/],
      [['status', 'nobody'], /has never run: berth sync run nobody/],
    ] as const) {
      const { code, stderr } = await local(...args)
      assert.equal(code, 1)
      assert.match(stderr, expected)
    }
  })

  test('settings that make no sense are all named before anything starts', async () => {
    const env = syncsOf({
      bad: {
        direction: 'sideways',
        url: 'registry.example',
        repositories: ['Team/**'],
        tags: { versions: 'new ones' },
        platforms: ['amd64'],
      },
    })
    const { code, stdout, stderr } = await berth(['config', 'check'], { env })
    assert.equal(code, 78)
    for (const fault of [
      /must be pull or push/,
      /must be a URL/,
      /a pattern is a repository name/,
      /range of semantic/,
    ]) {
      assert.match(stdout + stderr, fault)
    }
    const late = await berth(['config', 'check'], {
      env: syncsOf({
        odd: {
          direction: 'pull',
          url: 'https://registry.example',
          repositories: ['a'],
          username: 'me',
          passwordFile: '/nowhere',
        },
      }),
    })
    assert.match(late.stdout + late.stderr, /sync\.jobs\.odd\.passwordFile: cannot be read/)
    const when = await berth(['config', 'check'], {
      env: syncsOf({
        odd: { direction: 'pull', url: 'https://registry.example', repositories: ['a'], schedule: 'at night' },
      }),
    })
    assert.match(when.stdout + when.stderr, /odd: a schedule has five fields of cron/)
  })
})
