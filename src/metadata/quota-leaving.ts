import type { Transaction } from './database.ts'
import { claimBlobs, giveBack, releaseBlobs } from './quota-slots.ts'
import { holdQuotas, toldUsage } from './quotas.ts'

// A deleted repository counts in no quota. What logical quotas get back is one number; physical ones have to be told of
// every link, which is done in batches, by the ids of blobs: `leaving` says which still count those above `left_until`.
// Bringing it back goes the same way in the other direction, so either can be broken off anywhere.

/** Links that one transaction tells quotas of. */
const BATCH = 1000
/** How long a process that brings a repository back may be silent, in milliseconds. */
const RETURN_MS = 60_000
/** Above every id of a blob. */
const END = Number.MAX_SAFE_INTEGER

/**
 * A locked repository, which is being deleted, leaves all quotas: at once but for the links that physical ones count, of
 * which {@link leaveBatch} tells them.
 */
export async function leaveQuotas(tx: Transaction, repositoryId: number): Promise<void> {
  const quotas = await tx.query<{ id: number; measure: string }>(
    `select q.id, q.measure from repository r join quota q on q.id = any(r.quotas) where r.id = $1 order by q.id`,
    [repositoryId],
  )
  const physical = quotas.filter(({ measure }) => measure === 'physical').map(({ id }) => id)
  await tx.query(`update repository set quotas = '{}', leaving = $2::bigint[], left_until = 0 where id = $1`, [
    repositoryId,
    physical,
  ])
  await giveBackTold(tx, repositoryId, quotas, 1)
}

async function giveBackTold(
  tx: Transaction,
  repositoryId: number,
  quotas: readonly { readonly id: number; readonly measure: string }[],
  sign: 1 | -1,
): Promise<void> {
  if (quotas.length === 0) return
  const { blobBytes, manifestBytes } = await toldUsage(tx, [repositoryId])
  for (const { id, measure } of quotas) {
    await giveBack(tx, id, sign * (measure === 'physical' ? manifestBytes : blobBytes + manifestBytes))
  }
}

/** The ids of repositories that quotas have still to be told of, above `afterId`. */
export async function leavingRepositories(tx: Transaction, afterId: number, limit: number): Promise<readonly number[]> {
  const rows = await tx.query<{ id: number }>(
    `select id from repository where leaving <> '{}' and id > $1 order by id limit $2`,
    [afterId, limit],
  )
  return rows.map(({ id }) => id)
}

/**
 * Tells the quotas that a repository leaves of its next links. False where none is left to be told of, or somebody else
 * is at it, or brings the repository back.
 */
export async function leaveBatch(tx: Transaction, repositoryId: number): Promise<boolean> {
  const [row] = await tx.query<Leaving>(
    `select leaving, left_until from repository
      where id = $1 and leaving <> '{}' and coalesce(returning_until < clock_timestamp(), true)
        for update skip locked`,
    [repositoryId],
  )
  return row !== undefined && (await release(tx, repositoryId, row))
}

interface Leaving {
  readonly leaving: readonly number[]
  readonly left_until: number
}

/** Answers whether there may be more. */
async function release(
  tx: Transaction,
  repositoryId: number,
  { leaving, left_until: from }: Leaving,
): Promise<boolean> {
  const counted = await tx.query<{ blob_id: number }>(
    `select blob_id from repository_blob where repository_id = $1 and counted and blob_id > $2 order by blob_id limit $3`,
    [repositoryId, from, BATCH],
  )
  const to = counted.length < BATCH ? END : (counted.at(-1)?.blob_id ?? END)
  const links = [...counted, ...(await untoldLinks(tx, repositoryId, from, to))]
  for (const quota of leaving) {
    const bytes = await releaseBlobs(
      tx,
      quota,
      links.map(link => link.blob_id),
    )
    await giveBack(tx, quota, bytes ?? 0)
  }
  const isOver = to === END
  await tx.query('update repository set leaving = $2::bigint[], left_until = $3 where id = $1', [
    repositoryId,
    isOver ? [] : leaving,
    isOver ? 0 : to,
  ])
  return !isOver
}

/** Links that ended to count, which quotas count until they are told. */
async function untoldLinks(
  tx: Transaction,
  repositoryId: number,
  above: number,
  upTo: number,
): Promise<readonly { readonly blob_id: number; readonly size: number }[]> {
  return await tx.query(
    `select blob_id, -blob_bytes as size from usage_delta
      where repository_id = $1 and not settled and blob_id > $2 and blob_id <= $3`,
    [repositoryId, above, upTo],
  )
}

/**
 * Brings a deleted repository a step nearer to counting again in the physical quotas that name it, full or not. True where
 * nothing is left to do for that, or the repository is not there to come back.
 */
export async function returnBatch(tx: Transaction, repositoryId: number): Promise<boolean> {
  const state = await lockReturning(tx, repositoryId)
  if (state === undefined || isReady(state)) return true
  await tx.query(
    `update repository set returning_until = clock_timestamp() + $2 * interval '1 millisecond' where id = $1`,
    [repositoryId, RETURN_MS],
  )
  const { leaving, left_until: upTo, physical } = state
  if (isSame(leaving, physical)) await claim(tx, repositoryId, { leaving, left_until: upTo })
  else if (leaving.length > 0) await release(tx, repositoryId, state)
  else {
    await tx.query('update repository set leaving = $2::bigint[], left_until = $3 where id = $1', [
      repositoryId,
      physical,
      END,
    ])
  }
  return false
}

interface Returning extends Leaving {
  /** The physical quotas that name it now. */
  readonly physical: readonly number[]
}

async function lockReturning(tx: Transaction, repositoryId: number): Promise<Returning | undefined> {
  await holdQuotas(tx)
  await tx.query('select from repository where id = $1 for update', [repositoryId])
  const [row] = await tx.query<Returning>(
    `select r.left_until,
            array(select q.id from quota q where r.name ~ q.regex and q.measure = 'physical' order by q.id) as physical,
            array(select q.id from quota q where q.id = any(r.leaving) order by q.id) as leaving
       from repository r where r.id = $1 and r.deleted_at is not null and r.draining_at is null`,
    [repositoryId],
  )
  return row
}

function isReady({ leaving, left_until: upTo, physical }: Returning): boolean {
  return isSame(leaving, physical) && (physical.length === 0 || upTo === 0)
}

const isSame = (a: readonly number[], b: readonly number[]): boolean => a.join() === b.join()

async function claim(tx: Transaction, repositoryId: number, { leaving, left_until: upTo }: Leaving): Promise<void> {
  const counted = await tx.query<{ blob_id: number; size: number }>(
    `select l.blob_id, b.size from repository_blob l join blob b on b.id = l.blob_id
      where l.repository_id = $1 and l.counted and l.blob_id <= $2 order by l.blob_id desc limit $3`,
    [repositoryId, upTo, BATCH],
  )
  const above = counted.length < BATCH ? 0 : (counted.at(-1)?.blob_id ?? 1) - 1
  const links = [...counted, ...(await untoldLinks(tx, repositoryId, above, upTo))]
  for (const quota of leaving) await giveBack(tx, quota, -(await claimBlobs(tx, quota, links)))
  await tx.query('update repository set left_until = $2 where id = $1', [repositoryId, above])
}

/**
 * A locked repository, which is coming back, enters every quota whose pattern names it, full or not. False, and nothing is
 * changed, while {@link returnBatch} has something to do.
 */
export async function enterQuotas(tx: Transaction, repositoryId: number): Promise<boolean> {
  const state = await lockReturning(tx, repositoryId)
  if (state === undefined || !isReady(state)) return false
  const [entered] = await tx.query<{ quotas: readonly number[] }>(
    `update repository r
        set quotas = array(select q.id from quota q where r.name ~ q.regex order by q.id), leaving = '{}',
            left_until = 0, returning_until = null
      where r.id = $1 returning quotas`,
    [repositoryId],
  )
  const physical = new Set(state.physical)
  const quotas = (entered?.quotas ?? []).map(id => ({ id, measure: physical.has(id) ? 'physical' : 'logical' }))
  await giveBackTold(tx, repositoryId, quotas, -1)
  return true
}
