import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { createDatabase, startServer } from '../support/server.ts'
import { KILLS, killAgainAndAgain } from './kills.ts'
import { verifyFiles } from './verify.ts'

const INDEX = process.env['BERTH_TEST_POSTGRES'] ? 'Postgres' : 'embedded index'

void test(`${KILLS} times SIGKILL in the middle of pushes loses nothing and shows nothing half (${INDEX})`, async t => {
  const dataDir = await mkdtemp(join(tmpdir(), 'berth-crash-'))
  const database = await createDatabase()
  const place = {
    processes: 1,
    start: () =>
      startServer({ dataDir, env: { BERTH_LOG_LEVEL: 'info' }, ...(database && { databaseUrl: database.url }) }),
    verifyStored: verifyFiles.bind(undefined, dataDir),
  }
  try {
    await killAgainAndAgain(t, place, KILLS)
  } finally {
    await database?.drop()
    await rm(dataDir, { recursive: true, force: true })
  }
})
