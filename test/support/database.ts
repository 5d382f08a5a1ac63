import { createHash, randomBytes } from 'node:crypto'
import { cpSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, readdir, rename, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import type { Database } from '../../src/metadata/database.ts'
import { openEmbedded } from '../../src/metadata/embedded.ts'
import { migrate } from '../../src/metadata/migrate.ts'
import { openPostgres } from '../../src/metadata/postgres.ts'

const adminUrl = process.env['BERTH_TEST_POSTGRES']
const MIGRATIONS = new URL('../../migrations/', import.meta.url)
const SOURCES = new URL('../../src/metadata/', import.meta.url)
const CACHE = fileURLToPath(new URL('../../node_modules/.cache/berth-test/', import.meta.url))
const TEMPLATE_LOCK = 4_715_082

/** The driver that {@link withDatabase} gives: Postgres where BERTH_TEST_POSTGRES names a server. */
export const testDriver: 'embedded' | 'postgres' = adminUrl === undefined ? 'embedded' : 'postgres'

/** A database for one test file. */
export interface TestDatabase {
  readonly db: Database
  /** Opens another connection pool on the same database; the embedded driver has one opener, so it gives `db`. */
  another(): Promise<Database>
  /** Closes `db` and removes what it held. */
  close(): Promise<void>
}

/** A migrated database with nothing in it. */
export async function withDatabase(): Promise<TestDatabase> {
  return adminUrl === undefined ? await embedded('migrated') : await postgres(adminUrl, 'migrated')
}

/** A database without any schema. */
export async function withEmptyDatabase(): Promise<TestDatabase> {
  return adminUrl === undefined ? await embedded('empty') : await postgres(adminUrl, 'empty')
}

type Kind = 'migrated' | 'empty'

async function embedded(kind: Kind): Promise<TestDatabase> {
  const template = await templateDirectory(kind)
  const directory = await mkdtemp(join(tmpdir(), 'berth-test-index-'))
  // A thousand small files: one call is five times as fast as one promise each.
  cpSync(template, join(directory, 'index'), { recursive: true })
  const db = await openEmbedded({ directory: join(directory, 'index') })
  const close = async (): Promise<void> => {
    await db.close()
    await rm(directory, { recursive: true, force: true })
  }
  return { db, another: async () => db, close }
}

/** A data directory that is made once and copied by everyone; who renames first wins. */
async function templateDirectory(kind: Kind): Promise<string> {
  const template = join(CACHE, `${await fingerprint()}-${kind}`)
  if (await isDirectory(template)) return template
  await mkdir(CACHE, { recursive: true })
  const work = await mkdtemp(join(CACHE, 'making-'))
  try {
    const db = await openEmbedded({ directory: join(work, 'index') })
    if (kind === 'migrated') await migrate(db)
    await db.close()
    await rename(join(work, 'index'), template).catch(async error => {
      if (!(await isDirectory(template))) throw error
    })
  } finally {
    await rm(work, { recursive: true, force: true })
  }
  return template
}

async function isDirectory(path: string): Promise<boolean> {
  return await readdir(path).then(
    () => true,
    () => false,
  )
}

/** What a template depends on: the migrations and what runs them. */
async function fingerprint(): Promise<string> {
  const hash = createHash('sha256')
  for (const name of (await readdir(MIGRATIONS)).toSorted()) {
    hash.update(name).update(await readFile(new URL(name, MIGRATIONS)))
  }
  for (const name of ['migrate.ts', 'embedded-files.ts', 'embedded-init.ts']) {
    hash.update(await readFile(new URL(name, SOURCES)))
  }
  return hash.digest('hex').slice(0, 16)
}

async function postgres(admin: string, kind: Kind): Promise<TestDatabase> {
  const name = `berth_test_${randomBytes(8).toString('hex')}`
  if (kind === 'migrated') await asAdmin(admin, `create database ${name} template ${await templateDatabase(admin)}`)
  else await asAdmin(admin, `create database ${name}`)
  const url = urlOf(admin, name)
  const opened: Database[] = []
  const another = async (): Promise<Database> => {
    const db = await openPostgres({ url })
    opened.push(db)
    return db
  }
  const close = async (): Promise<void> => {
    await Promise.all(opened.map(db => db.close()))
    await asAdmin(admin, `drop database if exists ${name} with (force)`)
  }
  return { db: await another(), another, close }
}

/** A migrated database that is made once a server; an advisory lock keeps test files from making it twice. */
async function templateDatabase(admin: string): Promise<string> {
  const name = `berth_template_${await fingerprint()}`
  const client = new pg.Client(admin)
  await client.connect()
  try {
    await client.query('select pg_advisory_lock($1)', [TEMPLATE_LOCK])
    if ((await client.query('select from pg_database where datname = $1', [name])).rowCount === 1) return name
    const unfinished = `${name}_unfinished`
    await client.query(`drop database if exists ${unfinished} with (force)`)
    await client.query(`create database ${unfinished}`)
    const db = await openPostgres({ url: urlOf(admin, unfinished) })
    try {
      await migrate(db)
    } finally {
      await db.close()
    }
    await client.query(`alter database ${unfinished} rename to ${name}`)
    return name
  } finally {
    await client.end()
  }
}

async function asAdmin(admin: string, statement: string): Promise<void> {
  const client = new pg.Client(admin)
  await client.connect()
  try {
    await client.query(statement)
  } finally {
    await client.end()
  }
}

function urlOf(admin: string, database: string): string {
  const url = new URL(admin)
  url.pathname = `/${database}`
  return url.href
}
