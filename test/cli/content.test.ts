import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { type AccessServer, PASSWORD, basic, startAccessServer } from '../support/access.ts'
import { type Ended, berth } from '../support/command.ts'
import { askManifest, pushText, textIndex } from '../support/tag-client.ts'

/** EX_USAGE of sysexits.h. */
const USAGE = 64
const admin = basic('admin', PASSWORD)

void suite('the berth command deletes, brings back and keeps', () => {
  let server: AccessServer
  let work: string
  before(async () => {
    work = await mkdtemp(join(tmpdir(), 'berth-test-content-'))
    server = await startAccessServer()
  })
  after(async () => {
    await server.stop()
    await rm(work, { recursive: true, force: true })
  })

  const run = async (...args: string[]): Promise<Ended> =>
    await berth(args, { cwd: work, env: { BERTH_DATA_DIR: server.dataDir } })
  const said = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await run(...args)
    assert.equal(code, 0, `${args.join(' ')}: ${stderr}`)
    return stdout
  }
  const push = async (name: string, tag: string, text: string): Promise<string> => {
    assert.equal((await pushText(server.url, admin, { name, tag, text })).status, 201)
    return textIndex(text).digest
  }
  const pull = async (name: string, reference: string): Promise<string | undefined> =>
    (await askManifest(server.url, admin, { method: 'HEAD', name, reference })).digest

  test('a repository is shown, deleted, listed as deleted and brought back', async () => {
    const digest = await push('team/app', 'v1', 'one')
    assert.match(
      await said('repository', 'show', 'team/app'),
      /^NAME +TAGS +MANIFESTS +CREATED\nteam\/app +1 +1 +\d{4}-/,
    )
    assert.equal(
      await said('repository', 'delete', 'team/app'),
      'repository team/app was deleted; berth undelete team/app brings it back\n',
    )
    assert.equal(await pull('team/app', 'v1'), undefined)
    assert.match(await said('repository', 'list', '--deleted'), /team\/app .* local administrator /)
    assert.equal(await said('undelete', 'team/app'), 'repository team/app is back\n')
    assert.equal(await pull('team/app', 'v1'), digest)
    assert.match(await said('repository', 'list'), /^team\/app /m)
  })

  test('a tag and a manifest are deleted and brought back', async () => {
    const digest = await push('team/tags', 'v1', 'two')
    await said('tag', 'delete', 'team/tags:v1')
    assert.match(await said('undelete', 'team/tags:v1'), new RegExp(`^team/tags:v1 is back: ${digest}\n  tag v1\n$`))
    await said('manifest', 'delete', `team/tags@${digest}`)
    assert.equal(await pull('team/tags', 'v1'), undefined)
    const back = JSON.parse(await said('undelete', `team/tags@${digest}`, '--json')) as object
    assert.deepEqual(back, { digest, tags: ['v1'], manifests: [digest] })
    await said('tag', 'delete', 'team/tags:v1')
    const other = await push('team/tags', 'v1', 'three')
    const refused = await run('undelete', 'team/tags:v1')
    assert.equal(refused.code, 1)
    assert.match(refused.stderr, new RegExp(`^berth undelete: team/tags:v1 is there with another digest, ${other}`))
    await said('undelete', 'team/tags:v1', '--force')
    assert.equal(await pull('team/tags', 'v1'), digest)
  })

  test('the history of a tag is shown, and the tag rolled back', async () => {
    const first = await push('team/past', 'v1', 'four')
    const second = await push('team/past', 'v1', 'five')
    assert.match(
      await said('tag', 'history', 'team/past:v1'),
      new RegExp(`^AT .*\n.* push +admin +${first} +${second}\n`),
    )
    assert.equal(await said('tag', 'rollback', 'team/past:v1'), `team/past:v1 was moved from ${second}\nto ${first}\n`)
    await said('tag', 'rollback', 'team/past:v1', '--to', second)
    assert.equal(await pull('team/past', 'v1'), second)
    await said('tag', 'rollback', 'team/past:v1', '--steps', '2')
    assert.equal(await pull('team/past', 'v1'), second)
  })

  test('a tag rule is added, refuses, is listed and removed', async () => {
    await push('team/rule', 'v1', 'six')
    const rule = ['tag-rule', 'add', 'team/rule', '--tags', 'v*', '--immutable', '--name', 'releases']
    assert.equal(await said(...rule), 'tag rule releases: v* in team/rule\n')
    const refused = await run('tag', 'delete', 'team/rule:v1')
    assert.deepEqual(
      [refused.code, refused.stderr],
      [1, 'berth tag: tag v1 is immutable: tag rule releases (v* in team/rule)\n'],
    )
    assert.match(await said('tag-rule', 'list'), /\nreleases +team\/rule +v\* +true +false +- +false /)
    await said('tag-rule', 'remove', 'releases')
    await said('tag', 'delete', 'team/rule:v1')
  })

  test('what is written wrongly is refused before anything is asked', async () => {
    for (const args of [
      ['tag', 'history', 'team/app'],
      ['manifest', 'delete', 'team/app:v1'],
      ['tag', 'rollback', 'team/app:v1', '--steps', 'two'],
      ['undelete', 'team/app', '--force'],
      ['undelete', 'team/app:v1', '--id', '3'],
      ['tag-rule', 'add', 'team/**', '--immutable'],
    ]) {
      assert.equal((await run(...args)).code, USAGE, args.join(' '))
    }
  })
})
