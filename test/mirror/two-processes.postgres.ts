import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { administerOf } from '../support/access.ts'
import { RegistryClient } from '../support/client.ts'
import { type TestServer, createDatabase, startServer } from '../support/server.ts'

void suite('mirrors of two processes', () => {
  const opened = new AsyncDisposableStack()
  let origin: TestServer
  let one: TestServer
  let two: TestServer

  before(async () => {
    const database = await createDatabase()
    assert.ok(database, 'run this by scripts/with-postgres.ts')
    opened.defer(() => database.drop())
    const directory = await mkdtemp(join(tmpdir(), 'berth-test-mirrors-'))
    opened.defer(() => rm(directory, { recursive: true, force: true }))
    const start = async (databaseUrl: string): Promise<TestServer> => {
      const server = await startServer({ databaseUrl, env: { BERTH_STORAGE_FILESYSTEM_DIRECTORY: directory } })
      opened.defer(() => server.stop())
      return server
    }
    origin = await startServer()
    opened.defer(() => origin.stop())
    ;[one, two] = await Promise.all([start(database.url), start(database.url)])
  })
  after(() => opened.disposeAsync())

  test('what one is told the other has within seconds, and what both counted is one sum', async () => {
    await new RegistryClient(origin.url).pushImage('app', 'v1')
    const [atOne, atTwo] = [await administerOf(one), await administerOf(two)]
    const statusBy = async ({ url }: TestServer): Promise<number> =>
      (await new RegistryClient(url).ask('/v2/shared/app/manifests/v1', { method: 'HEAD' })).status
    await atOne('POST', '/mirrors', { prefix: 'shared', url: origin.url, allowPrivate: true })
    assert.equal(await statusBy(one), 200)
    let asked = 1
    // Until it has heard of the mirror, the copy that the first made is an ordinary repository to it.
    while (!(await isMirrorAt(two))) await new Promise(setImmediate)
    for (const server of [one, two]) {
      assert.equal(await statusBy(server), 200)
      asked += 1
    }
    const sum = async (): Promise<number> => {
      const { figures } = (await atOne('GET', '/mirrors/shared')) as { figures: Record<string, number> }
      return (figures['manifestHits'] ?? 0) + (figures['manifestMisses'] ?? 0)
    }
    await atTwo('GET', '/mirrors/shared')
    assert.equal(await sum(), asked)
    await atTwo('DELETE', '/mirrors/shared')
    while (await isMirrorAt(one)) await new Promise(setImmediate)
    assert.equal(await statusBy(one), 200, 'what was a mirror stays readable')
  })

  /** A mirror refuses pushes; nothing that the process is asked here makes it look for mirrors. */
  async function isMirrorAt({ url }: TestServer): Promise<boolean> {
    const answer = await new RegistryClient(url).ask('/v2/shared/app/blobs/uploads/', { method: 'POST' })
    return answer.status === 405
  }

  test('two that add mirrors in each other’s way at once: one is told so', async () => {
    const [atOne, atTwo] = [await administerOf(one), await administerOf(two)]
    const add = (at: typeof atOne, prefix: string): Promise<unknown> =>
      at('POST', '/mirrors', { prefix, url: origin.url })
    const outcomes = await Promise.allSettled([add(atOne, 'race'), add(atTwo, 'race/below')])
    assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1)
    const refused = outcomes.find(outcome => outcome.status === 'rejected')
    assert.match(String(refused?.reason), /409.*must not contain each other/)
  })
})
