import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite } from 'node:test'
import { type AccessServer, startAccessServer } from '../support/access.ts'
import { type TestDatabase, createDatabase } from '../support/server.ts'
import { describeTagRaces } from '../support/tag-races.ts'

void suite('tags that rules keep, in two processes on one Postgres', () => {
  let database: TestDatabase
  let dataDir: string
  let one: AccessServer
  let two: AccessServer
  let turn = 0

  before(async () => {
    const made = await createDatabase()
    assert.ok(made !== undefined, 'BERTH_TEST_POSTGRES names no server: run npm run test:postgres')
    database = made
    dataDir = await mkdtemp(join(tmpdir(), 'berth-tags-'))
    const start = (): Promise<AccessServer> => startAccessServer({}, { databaseUrl: database.url, dataDir })
    one = await start()
    two = await start()
  })
  after(async () => {
    await Promise.all([one.stop(), two.stop()])
    await database.drop()
    await rm(dataDir, { recursive: true, force: true })
  })

  describeTagRaces(() => ((turn += 1) % 2 === 0 ? one : two))
})
