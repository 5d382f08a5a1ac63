import type { Queryable, Transaction } from './database.ts'

/** A mirror that was added by the API. */
export interface MirrorRow {
  readonly id: number
  readonly prefix: string
  /** Counts its changes. */
  readonly revision: number
  /** As it was checked when it was put. */
  readonly settings: unknown
  readonly username: string | null
  readonly password: string | null
  readonly created_at: Date
  readonly created_by: string | null
}

/** What is put. */
export type NewMirror = Pick<MirrorRow, 'prefix' | 'settings' | 'username' | 'password' | 'created_by'>

const COLUMNS = 'id, prefix, revision, settings, username, password, created_at, created_by'

/** Every mirror by prefix; there are few. */
export async function listMirrors(db: Queryable): Promise<readonly MirrorRow[]> {
  return await db.query<MirrorRow>(`select ${COLUMNS} from mirror order by prefix`)
}

/** What tells one state of all mirrors from another: cheap enough to ask every few seconds. */
export async function mirrorsVersion(db: Queryable): Promise<string> {
  const rows = await db.query<{ version: string }>(
    `select coalesce(string_agg(id || ':' || revision, ',' order by id), '') as version from mirror`,
  )
  return rows[0]?.version ?? ''
}

/** Makes changes of mirrors wait for each other, to the end of the transaction: their prefixes must not overlap. */
export async function lockMirrors(tx: Transaction): Promise<void> {
  await tx.query("select pg_advisory_xact_lock(hashtextextended('mirrors', 0))")
}

/** Adds a mirror. */
export async function insertMirror(tx: Transaction, mirror: NewMirror): Promise<void> {
  await tx.query(`insert into mirror (prefix, settings, username, password, created_by) values ($1, $2, $3, $4, $5)`, [
    mirror.prefix,
    JSON.stringify(mirror.settings),
    mirror.username,
    mirror.password,
    mirror.created_by,
  ])
}

/** Changes a mirror. */
export async function updateMirror(
  tx: Transaction,
  mirror: Pick<MirrorRow, 'prefix' | 'settings' | 'username' | 'password'>,
): Promise<void> {
  await tx.query(
    `update mirror set settings = $2, username = $3, password = $4, revision = revision + 1 where prefix = $1`,
    [mirror.prefix, JSON.stringify(mirror.settings), mirror.username, mirror.password],
  )
}

/** Removes a mirror with what was counted of it. False where there is none. */
export async function deleteMirror(tx: Transaction, prefix: string): Promise<boolean> {
  const rows = await tx.query('delete from mirror where prefix = $1 returning id', [prefix])
  for (const table of ['mirror_count', 'mirror_failure', 'mirror_state']) {
    await tx.query(`delete from ${table} where prefix = $1`, [prefix])
  }
  return rows.length === 1
}

/** Whether a mirror of that prefix is there; it stays so until the transaction ends. */
export async function holdMirror(tx: Transaction, prefix: string): Promise<boolean> {
  return (await tx.query('select id from mirror where prefix = $1 for key share', [prefix])).length === 1
}

/** One living repository below a prefix, if there is any. */
export async function repositoryBelow(db: Queryable, prefix: string): Promise<string | undefined> {
  const rows = await db.query<{ name: string }>(
    `select name from repository where ${BELOW} and deleted_at is null order by name limit 1`,
    below(prefix),
  )
  return rows[0]?.name
}

/** The condition that a name lies below a prefix, in the words of the index of names; its values are {@link below}. */
export const BELOW = 'name > $1 and name < $2'

/** The names between which everything below a prefix lies, in byte order: `0` comes after `/`. */
export function below(prefix: string): [string, string] {
  return [`${prefix}/`, `${prefix}0`]
}
