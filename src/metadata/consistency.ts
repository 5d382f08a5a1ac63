import type { Queryable, Transaction } from './database.ts'
import { NAMED, ROOTED } from './sweep.ts'

// What the collector relies on being told: a row that nothing keeps any more has a finite lease, or, a blob, a mark. These
// find rows of which that is not true, window by window in the order of their keys, without a lock on any that is.

/** A part of a table, by its key: what was found wrong in it, and where the next begins. */
export interface Window {
  /** Keys of rows that nothing keeps and nobody would look at. */
  readonly lost: readonly Key[]
  /** The last key of the window, or undefined where there is nothing after the key that it was to begin after. */
  readonly end: Key | undefined
  /** How many rows it has. */
  readonly looked: number
}

/** The key of a row: an id, or a repository's and a blob's. */
export type Key = readonly [number, number]

interface WindowRow {
  readonly a: number
  readonly b: number
  readonly lost: boolean
}

/** One of the tables that are walked. */
export interface Walked {
  readonly find: (db: Queryable, after: Key, limit: number) => Promise<Window>
  /** Gives lost rows back to the collector, if they still are lost; answers how many were. */
  readonly mend: (tx: Transaction, lost: readonly Key[], leaseMs: number) => Promise<number>
}

const LINKED = 'exists (select from repository_blob l where l.blob_id = b.id offset 0)'

/** Manifests with an infinite lease that nothing roots. */
const manifests: Walked = {
  find: (db, after, limit) =>
    findLost(
      db,
      `select m.id as a, 0 as b, m.lease_until = 'infinity' and not (${ROOTED}) as lost
         from manifest m where m.id > $1 and $2::bigint is not null order by m.id limit $3`,
      after,
      limit,
    ),
  async mend(tx, lost, leaseMs) {
    const ids = lost.map(([id]) => id)
    // Judged by a statement after the lock, as the sweep does: what was rooted meanwhile is no drift.
    await tx.query('select id from manifest where id = any($1::bigint[]) order by id for no key update', [ids])
    const rows = await tx.query(
      `update manifest m set lease_until = clock_timestamp() + $2 * interval '1 millisecond'
        where m.id = any($1::bigint[]) and m.lease_until = 'infinity' and not (${ROOTED}) returning m.id`,
      [ids, leaseMs],
    )
    return rows.length
  },
}

/** Links with an infinite lease that no manifest names. */
const links: Walked = {
  find: (db, after, limit) =>
    findLost(
      db,
      `select l.repository_id as a, l.blob_id as b, l.lease_until = 'infinity' and not ${NAMED} as lost
         from repository_blob l where (l.repository_id, l.blob_id) > ($1, $2)
        order by l.repository_id, l.blob_id limit $3`,
      after,
      limit,
    ),
  async mend(tx, lost, leaseMs) {
    const keys = [lost.map(([repository]) => repository), lost.map(([, blob]) => blob)]
    const locked = '(l.repository_id, l.blob_id) in (select * from unnest($1::bigint[], $2::bigint[]))'
    await tx.query(
      `select l.blob_id from repository_blob l where ${locked} order by l.repository_id, l.blob_id for no key update`,
      keys,
    )
    const rows = await tx.query(
      `update repository_blob l set lease_until = clock_timestamp() + $3 * interval '1 millisecond'
        where ${locked} and l.lease_until = 'infinity' and not ${NAMED} returning l.blob_id`,
      [...keys, leaseMs],
    )
    return rows.length
  },
}

/** Blobs without a link and without a mark. */
const blobs: Walked = {
  find: (db, after, limit) =>
    findLost(
      db,
      `select b.id as a, 0 as b, b.unlinked_at is null and not ${LINKED} as lost
         from blob b where b.id > $1 and $2::bigint is not null order by b.id limit $3`,
      after,
      limit,
    ),
  async mend(tx, lost) {
    const rows = await tx.query(
      `update blob set unlinked_at = clock_timestamp() where id in (
         select b.id from blob b where b.id = any($1::bigint[]) and b.unlinked_at is null and not ${LINKED}
          order by b.id for no key update) returning id`,
      [lost.map(([id]) => id)],
    )
    return rows.length
  },
}

/** The tables in the order in which they are walked: what loses its root by one is found in the next. */
export const WALKED = { manifest: manifests, link: links, blob: blobs } as const satisfies Record<string, Walked>
export type WalkedTable = keyof typeof WALKED

async function findLost(db: Queryable, text: string, [a, b]: Key, limit: number): Promise<Window> {
  const rows = await db.query<WindowRow>(text, [a, b, limit])
  const keys = (of: readonly WindowRow[]): Key[] => of.map(row => [row.a, row.b] as const)
  return { lost: keys(rows.filter(row => row.lost)), end: keys(rows.slice(-1))[0], looked: rows.length }
}
