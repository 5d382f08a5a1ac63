import type { RepositoryName } from '../oci/name.ts'
import type { Queryable, Transaction } from './database.ts'
import { holdQuotas } from './quotas.ts'

/** A living repository. */
export interface RepositoryRow {
  readonly id: number
  /** Whether sha512 content was ever pushed here, so that uploads hash for it as well. */
  readonly uses_sha512: boolean
  /** The quotas that count it, ascending. */
  readonly quotas: readonly number[]
}

/** The living repository of that name. */
export async function findRepository(db: Queryable, name: RepositoryName): Promise<RepositoryRow | undefined> {
  const rows = await db.query<RepositoryRow>(
    'select id, uses_sha512, quotas from repository where name = $1 and deleted_at is null',
    [name],
  )
  return rows[0]
}

/** The living repository of that name, held as {@link holdRepository} does, or undefined where there is none. */
export async function holdExistingRepository(
  tx: Transaction,
  name: RepositoryName,
): Promise<RepositoryRow | undefined> {
  const held = await tx.query<RepositoryRow>(
    'select id, uses_sha512, quotas from repository where name = $1 and deleted_at is null for key share',
    [name],
  )
  return held[0]
}

/**
 * The living repository of that name, made where absent, and held against deletion (which locks it FOR UPDATE) until the
 * transaction ends. Whoever holds it may still note something in its row: a stronger hold would deadlock two that do.
 */
export async function holdRepository(tx: Transaction, name: RepositoryName): Promise<RepositoryRow> {
  const held = await holdExistingRepository(tx, name)
  if (held !== undefined) return held
  await holdQuotas(tx)
  await tx.query(
    `with made as (
       insert into repository (name, quotas)
       values ($1, array(select id from quota where $1 ~ regex order by id))
       on conflict (name) where deleted_at is null do nothing returning id)
     insert into repository_usage (repository_id, counted_at) select id, clock_timestamp() from made`,
    [name],
  )
  return await holdRepository(tx, name)
}

/** Remembers that a repository holds sha512 content. */
export async function rememberSha512(tx: Transaction, id: number): Promise<void> {
  await tx.query('update repository set uses_sha512 = true where id = $1 and not uses_sha512', [id])
}

/**
 * A condition that `column` matches one regular expression of each list; adds the lists to the statement's `values`. No
 * list: everything is visible.
 */
export function visibleCondition(column: string, visible: readonly (readonly string[])[], values: unknown[]): string {
  return ['true', ...visible.map(list => `${column} ~ any($${values.push(list)}::text[])`)].join(' and ')
}

/** Names of living repositories that hold a manifest and are visible, in byte order, after `last`. */
export async function listRepositories(
  db: Queryable,
  visible: readonly (readonly string[])[],
  last: string,
  limit: number,
): Promise<string[]> {
  const values: unknown[] = [last, limit]
  const rows = await db.query<{ name: string }>(
    `select name from repository r
      where deleted_at is null and name > $1 and ${visibleCondition('name', visible, values)}
        and exists (select from manifest m where m.repository_id = r.id and m.deleted_at is null)
      order by name limit $2`,
    values,
  )
  return rows.map(row => row.name)
}

/** The ids of living repositories by name; a name that has none is left out. */
export async function repositoryIds(db: Queryable, names: readonly string[]): Promise<ReadonlyMap<string, number>> {
  if (names.length === 0) return new Map()
  const rows = await db.query<{ name: string; id: number }>(
    'select name, id from repository where name = any($1::text[]) and deleted_at is null',
    [names],
  )
  return new Map(rows.map(row => [row.name, row.id]))
}

/** Holds a repository against deletion to the end of the transaction. False where it is deleted. */
export async function keepLivingRepository(tx: Transaction, id: number): Promise<boolean> {
  const rows = await tx.query('select id from repository where id = $1 and deleted_at is null for key share', [id])
  return rows.length === 1
}
