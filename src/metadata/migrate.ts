import { createHash } from 'node:crypto'
import { readFile, readdir } from 'node:fs/promises'
import type { Database } from './database.ts'

const MIGRATIONS = new URL('../../migrations/', import.meta.url)
/** Any number will do, as long as every process takes the same. */
const LOCK = 4_715_081

interface AppliedRow {
  readonly name: string
  readonly checksum: string
}

/**
 * Brings the schema up to date, forward only, one transaction a migration under an advisory lock: any number of
 * processes may call it at once. A newer schema is accepted unless it names a migration as needed that this program lacks.
 * @throws Error where an applied migration is not the one this program has, or the schema says the program is too old.
 */
export async function migrate(db: Database, directory: URL = MIGRATIONS): Promise<{ readonly applied: string[] }> {
  await db.transaction(async tx => {
    await tx.query('select pg_advisory_xact_lock($1)', [LOCK])
    await tx.script(`create table if not exists schema_migration (
      name text collate "C" primary key,
      checksum text not null,
      applied_at timestamptz not null default now())`)
    await tx.script(`create table if not exists schema_requirement (
      migration text collate "C" primary key)`)
  })
  const files = (await readdir(directory)).filter(file => file.endsWith('.sql')).toSorted()
  const applied: string[] = []
  for (const file of files) {
    const script = await readFile(new URL(file, directory), 'utf8')
    const checksum = createHash('sha256').update(script).digest('hex')
    const isNew = await db.transaction(async tx => {
      await tx.query('select pg_advisory_xact_lock($1)', [LOCK])
      const [known] = await tx.query<AppliedRow>('select name, checksum from schema_migration where name = $1', [file])
      if (known !== undefined) {
        if (known.checksum !== checksum) throw new Error(`migration ${file} was changed after it was applied`)
        return false
      }
      await tx.script(script)
      await tx.query('insert into schema_migration (name, checksum) values ($1, $2)', [file, checksum])
      return true
    })
    if (isNew) applied.push(file)
  }
  const required = await db.query<{ migration: string }>('select migration from schema_requirement')
  const lacking = required.map(row => row.migration).filter(name => !files.includes(name))
  if (lacking.length > 0) {
    throw new Error(`the index needs a newer Berth: this one does not know ${lacking.join(', ')}`)
  }
  return { applied }
}
