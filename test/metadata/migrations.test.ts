import assert from 'node:assert/strict'
import { cp, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, it } from 'node:test'
import { fileURLToPath, pathToFileURL } from 'node:url'
import type { Database } from '../../src/metadata/database.ts'
import { migrate } from '../../src/metadata/migrate.ts'
import { type TestDatabase, withEmptyDatabase } from '../support/database.ts'

const MIGRATIONS = new URL('../../migrations/', import.meta.url)
const EXPECTED = new URL('schema.txt', import.meta.url)
const files = (await readdir(MIGRATIONS)).toSorted()

let test: TestDatabase
let copy: string
beforeEach(async () => {
  test = await withEmptyDatabase()
  copy = await mkdtemp(join(tmpdir(), 'berth-test-migrations-'))
  await cp(fileURLToPath(MIGRATIONS), copy, { recursive: true })
})
afterEach(async () => {
  await test.close()
  await rm(copy, { recursive: true })
})

/** The schema in a form that no driver or server version changes. */
async function dump(db: Database): Promise<string> {
  const columns = await db.query<{ line: string }>(
    `select format('column %s.%s %s%s%s%s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
        case when a.attnotnull then ' not null' else '' end,
        case when a.attidentity <> '' then ' identity' else '' end,
        coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '')) as line
      from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
      left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
      where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' order by c.relname collate "C", a.attnum`,
  )
  // From version 18 on NOT NULL is a constraint as well ("n"); the columns say it already.
  const constraints = await db.query<{ line: string }>(
    `select format('constraint %s.%s %s', c.relname, k.conname, pg_get_constraintdef(k.oid)) as line
      from pg_constraint k join pg_class c on c.oid = k.conrelid
      where k.connamespace = 'public'::regnamespace and k.contype <> 'n'
      order by c.relname collate "C", k.conname collate "C"`,
  )
  const indexes = await db.query<{ line: string }>(
    `select indexdef as line from pg_indexes where schemaname = 'public' order by indexname collate "C"`,
  )
  return [...columns, ...constraints, ...indexes].map(row => `${row.line}\n`).join('')
}

void it('an empty database gets every migration, and nothing the second time', async () => {
  assert.deepEqual(await migrate(test.db), { applied: files })
  assert.deepEqual(await migrate(test.db), { applied: [] })
})

void it('the schema is the one that was reviewed', async () => {
  await migrate(test.db)
  const actual = await dump(test.db)
  if (process.env['UPDATE'] === '1') await writeFile(EXPECTED, actual)
  assert.equal(actual, await readFile(EXPECTED, 'utf8'))
})

void it('twenty that start at once apply every migration once', async () => {
  const opened = await Promise.all(Array.from({ length: 20 }, () => test.another()))
  const outcomes = await Promise.all(opened.map(db => migrate(db)))
  assert.deepEqual(outcomes.flatMap(outcome => outcome.applied).toSorted(), files)
})

void it('a migration that changed after it was applied is refused', async () => {
  await migrate(test.db)
  const [first = ''] = files
  await writeFile(join(copy, first), `${await readFile(join(copy, first), 'utf8')}\n-- changed`)
  await assert.rejects(migrate(test.db, pathToFileURL(`${copy}/`)), /is not the one that was applied/)
})

void it('a migration that fails leaves nothing behind', async () => {
  await writeFile(join(copy, '9000-broken.sql'), 'create table half_done (id bigint); select 1/0;')
  await assert.rejects(migrate(test.db, pathToFileURL(`${copy}/`)), /division by zero/)
  assert.deepEqual(await test.db.query(`select to_regclass('half_done') as found`), [{ found: null }])
  assert.deepEqual(await migrate(test.db), { applied: [] })
})

void it('a newer schema is accepted until it says that the program is too old', async () => {
  await writeFile(join(copy, '9000-later.sql'), 'create table later (id bigint);')
  await migrate(test.db, pathToFileURL(`${copy}/`))
  assert.deepEqual(await migrate(test.db), { applied: [] })
  await writeFile(join(copy, '9001-contract.sql'), 'update schema_requirement set minimum_version = 9000;')
  await migrate(test.db, pathToFileURL(`${copy}/`))
  await assert.rejects(migrate(test.db), /too old/)
})
