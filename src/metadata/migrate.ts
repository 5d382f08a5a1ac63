import { createHash } from 'node:crypto'
import { readFile, readdir } from 'node:fs/promises'
import { type Database, IndexUnusable, type Transaction } from './database.ts'

const MIGRATIONS = new URL('../../migrations/', import.meta.url)
/** Any number will do, as long as every process takes the same. */
const LOCK = 4_715_081
const FILE = /^(\d{4})-([a-z0-9-]+)\.sql$/

interface Migration {
  readonly number: number
  readonly name: string
  readonly script: string
  readonly checksum: string
}

/**
 * Brings the schema up to date, forward only, one transaction a migration under an advisory lock: any number of
 * processes may call it at once. A newer schema is accepted, unless `schema_requirement` names a number above the
 * highest migration this program has.
 * @throws IndexUnusable where an applied migration is not the one this program has, or the schema says the program is too old.
 */
export async function migrate(db: Database, directory: URL = MIGRATIONS): Promise<{ readonly applied: string[] }> {
  const migrations = await readMigrations(directory)
  await db.transaction(async tx => {
    await lock(tx)
    await tx.script(`
      create table if not exists schema_migration (
        number integer primary key,
        name text not null,
        checksum text not null,
        applied_at timestamptz not null default now());
      -- One row: the least migration a program must know to use this schema.
      create table if not exists schema_requirement (
        only_row boolean primary key default true check (only_row),
        minimum_version integer not null);
      insert into schema_requirement (minimum_version) values (0) on conflict do nothing`)
    await refuseTooOld(tx, migrations)
  })
  const applied: string[] = []
  for (const migration of migrations) {
    if (await db.transaction(tx => apply(tx, migration))) applied.push(migration.name)
  }
  return { applied }
}

async function readMigrations(directory: URL): Promise<Migration[]> {
  const migrations: Migration[] = []
  for (const file of (await readdir(directory)).toSorted()) {
    const number = FILE.exec(file)?.[1]
    if (number === undefined) continue
    const script = await readFile(new URL(file, directory), 'utf8')
    const checksum = createHash('sha256').update(script).digest('hex')
    migrations.push({ number: Number(number), name: file, script, checksum })
  }
  return migrations
}

/** Waits for its turn and works for as long as it takes; both may exceed what a request is allowed. */
async function lock(tx: Transaction): Promise<void> {
  await tx.script(`set local statement_timeout = 0; set local lock_timeout = 0; select pg_advisory_xact_lock(${LOCK})`)
}

async function refuseTooOld(tx: Transaction, migrations: readonly Migration[]): Promise<void> {
  const [requirement] = await tx.query<{ minimum_version: number }>('select minimum_version from schema_requirement')
  const newest = migrations.at(-1)?.number ?? 0
  const needed = requirement?.minimum_version ?? 0
  if (needed > newest) {
    throw new IndexUnusable(
      `this version is too old for the index: it knows migration ${newest}, the index needs ${needed}; run the newer version`,
    )
  }
}

/** @returns whether the migration was new. */
async function apply(tx: Transaction, migration: Migration): Promise<boolean> {
  await lock(tx)
  const [known] = await tx.query<{ checksum: string }>('select checksum from schema_migration where number = $1', [
    migration.number,
  ])
  if (known !== undefined) {
    if (known.checksum === migration.checksum) return false
    throw new IndexUnusable(
      `migration ${migration.name} is not the one that was applied to this index: run the version that made it, or a later one`,
    )
  }
  await tx.script(migration.script)
  await tx.query('insert into schema_migration (number, name, checksum) values ($1, $2, $3)', [
    migration.number,
    migration.name,
    migration.checksum,
  ])
  return true
}
