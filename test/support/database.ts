import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Database } from '../../src/metadata/database.ts'
import { openEmbedded } from '../../src/metadata/embedded.ts'
import { migrate } from '../../src/metadata/migrate.ts'
import { openPostgres } from '../../src/metadata/postgres.ts'

const ADMIN_URL = process.env['BERTH_TEST_POSTGRES']

/** Which driver the tests run on: Postgres where `BERTH_TEST_POSTGRES` names a server. */
export const testDriver = ADMIN_URL === undefined ? 'embedded' : 'postgres'

/** An index of its own for one test file. */
export interface TestDatabase {
  readonly db: Database
  /** Opens another pool on the same index; only Postgres can. */
  readonly url: string | undefined
  close(): Promise<void>
}

/** Makes an empty index; `migrated: false` leaves it without a schema. */
export async function makeDatabase(
  options: { readonly migrated: boolean } = { migrated: true },
): Promise<TestDatabase> {
  const made = ADMIN_URL === undefined ? await makeEmbedded() : await makePostgres(ADMIN_URL)
  if (options.migrated) await migrate(made.db)
  return made
}

async function makeEmbedded(): Promise<TestDatabase> {
  const directory = await mkdtemp(join(tmpdir(), 'berth-index-'))
  const db = await openEmbedded({ directory: join(directory, 'index') })
  return {
    db,
    url: undefined,
    async close() {
      await db.close()
      await rm(directory, { recursive: true, force: true })
    },
  }
}

async function makePostgres(adminUrl: string): Promise<TestDatabase> {
  const name = `berth_test_${randomBytes(8).toString('hex')}`
  const admin = await openPostgres({ url: adminUrl, poolSize: 1 })
  await admin.query(`create database ${name}`)
  const url = new URL(adminUrl)
  url.pathname = `/${name}`
  const db = await openPostgres({ url: url.href })
  return {
    db,
    url: url.href,
    async close() {
      await db.close()
      await admin.query(`drop database ${name} with (force)`)
      await admin.close()
    },
  }
}
