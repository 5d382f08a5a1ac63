import type { Queryable, Transaction } from './database.ts'

// What is left of a quota lies in several rows, so that transactions that use it up do not wait for each other's commit:
// each takes from a row that has enough and that nobody else holds. Only where none has, all rows are locked and what is
// left is dealt out anew. So no two can take the same bytes, and the limit is never passed. Whoever works on several
// quotas in one transaction takes them by ascending id, as its last rows.

const SLOTS = 16

/** How a quota stands, in bytes. `used` may exceed `limit`: a limit can be set below what is there. */
export interface QuotaState {
  readonly pattern: string
  readonly measure: 'logical' | 'physical'
  readonly used: number
  readonly limit: number
}

/** Gives a new quota its rows, with everything free. */
export async function insertSlots(tx: Transaction, quotaId: number, free: number): Promise<void> {
  await tx.query(
    `insert into quota_slot (quota_id, slot, free) select $1, slot, share
       from unnest($2::int[], $3::bigint[]) as s (slot, share)`,
    [quotaId, shares(free).map((_, slot) => slot), shares(free)],
  )
}

/** How quotas stand, in the order of their ids; those that are gone are left out. */
export async function quotaStates(
  db: Queryable,
  quotaIds: readonly number[],
): Promise<readonly (QuotaState & { readonly id: number })[]> {
  return await db.query(
    `select q.id, q.pattern, q.measure, q.limit_bytes as limit,
            q.limit_bytes - (select sum(free) from quota_slot where quota_id = q.id)::bigint as used
       from quota q where q.id = any($1::bigint[]) order by q.id`,
    [quotaIds],
  )
}

/**
 * Takes `bytes` (more than 0) of what is left. Answers how the quota stood before, and whether it had so much left;
 * undefined where the quota is gone.
 */
export async function takeFree(tx: Transaction, quotaId: number, bytes: number): Promise<Taken | undefined> {
  // Where others hold every slot that has enough, one of them is waited for. A slot that had enough when it was found and
  // has not when it is locked stays locked, and all are locked in their order next: so it is let go first.
  await tx.query('savepoint slot')
  for (const take of [takeFromFreeSlot, takeFromOneSlot]) {
    const took = await take(tx, quotaId, bytes)
    if (took === undefined || took.taken) return took
    await tx.query('rollback to savepoint slot')
  }
  const free = await lockSlots(tx, quotaId)
  const [state] = await quotaStates(tx, [quotaId])
  if (free === undefined || state === undefined) return undefined
  if (free < bytes) return { ...state, taken: false }
  await dealOut(tx, quotaId, free - bytes)
  return { ...state, taken: true }
}

type Taken = QuotaState & { readonly taken: boolean }

/** Takes from a slot that nobody holds. */
async function takeFromFreeSlot(tx: Transaction, quotaId: number, bytes: number): Promise<Taken | undefined> {
  return await takeFromSlot(tx, quotaId, bytes, 'for update skip locked')
}

/** Takes from a slot that others may hold: waits for it, and for no other. */
async function takeFromOneSlot(tx: Transaction, quotaId: number, bytes: number): Promise<Taken | undefined> {
  return await takeFromSlot(tx, quotaId, bytes, '')
}

async function takeFromSlot(tx: Transaction, quotaId: number, bytes: number, lock: string): Promise<Taken | undefined> {
  // A slot below zero: the quota is over its limit, and what others of its slots got back since is not free.
  const rows = await tx.query<Taken>(
    `with slots as (select sum(free)::bigint as free, min(free) as least from quota_slot where quota_id = $1),
     taken as (
       update quota_slot set free = free - $2
        where quota_id = $1 and free >= $2 and slot = (
          select slot from quota_slot where quota_id = $1 and free >= $2 and (select least from slots) >= 0
           order by random() limit 1 ${lock})
       returning slot)
     select q.pattern, q.measure, q.limit_bytes as limit, exists (select from taken) as taken,
            q.limit_bytes - s.free as used
       from quota q, slots s where q.id = $1`,
    [quotaId, bytes],
  )
  return rows[0]
}

/** Gives back `bytes`; where they are negative, takes them even if so much is not left. A quota that is gone needs nothing. */
export async function giveBack(tx: Transaction, quotaId: number, bytes: number): Promise<void> {
  if (bytes === 0) return
  if (bytes < 0) return await addToLimit(tx, quotaId, bytes)
  const given = await tx.query(
    `update quota_slot set free = free + $2
      where quota_id = $1 and slot = (select slot from quota_slot where quota_id = $1
                                       order by free limit 1 for update skip locked)
     returning slot`,
    [quotaId, bytes],
  )
  if (given.length === 0) await addToLimit(tx, quotaId, bytes)
}

/** Adds `bytes`, which may be negative, to what is left, and deals it out anew. */
export async function addToLimit(tx: Transaction, quotaId: number, bytes: number): Promise<void> {
  const free = await lockSlots(tx, quotaId)
  if (free !== undefined) await dealOut(tx, quotaId, free + bytes)
}

/** Locks all that is left of a quota and answers it; undefined where the quota is gone. */
async function lockSlots(tx: Transaction, quotaId: number): Promise<number | undefined> {
  const rows = await tx.query<{ free: number }>(
    'select free from quota_slot where quota_id = $1 order by slot for update',
    [quotaId],
  )
  return rows.length === 0 ? undefined : rows.reduce((sum, { free }) => sum + free, 0)
}

async function dealOut(tx: Transaction, quotaId: number, free: number): Promise<void> {
  await tx.query(
    `update quota_slot q set free = s.share from unnest($2::int[], $3::bigint[]) as s (slot, share)
      where q.quota_id = $1 and q.slot = s.slot`,
    [quotaId, shares(free).map((_, slot) => slot), shares(free)],
  )
}

/** Shares of one sign that add up to `free`. */
function shares(free: number): number[] {
  const share = Math.trunc(free / SLOTS)
  return Array.from({ length: SLOTS }, (_, slot) => (slot === 0 ? free - share * (SLOTS - 1) : share))
}

/** Which of these quotas count physical bytes. */
export async function physicalQuotas(db: Queryable, quotaIds: readonly number[]): Promise<ReadonlySet<number>> {
  const rows = await db.query<{ id: number }>(
    `select id from quota where id = any($1::bigint[]) and measure = 'physical'`,
    [quotaIds],
  )
  return new Set(rows.map(({ id }) => id))
}

/**
 * Counts new links of blobs in a physical quota, by the ids of the blobs. Answers the bytes of those that no other
 * repository of the quota counts yet.
 */
export async function claimBlobs(
  tx: Transaction,
  quotaId: number,
  links: readonly { readonly blob_id: number; readonly size: number }[],
): Promise<number> {
  if (links.length === 0) return 0
  // A row that was inserted has no xmax: the last link's end deletes the row.
  const rows = await tx.query<{ size: number; added: number }>(
    `insert into quota_blob as b (quota_id, blob_id, size, links)
     select $1, blob_id, max(size), count(*) from unnest($2::bigint[], $3::bigint[]) as l (blob_id, size)
      where exists (select from quota where id = $1)
      group by blob_id order by blob_id
     on conflict (quota_id, blob_id) do update set links = b.links + excluded.links
     returning size, (xmax = 0)::int as added`,
    [quotaId, links.map(link => link.blob_id), links.map(link => link.size)],
  )
  return rows.reduce((sum, { size, added }) => sum + size * added, 0)
}

/**
 * Takes links of blobs out of a physical quota. Answers the bytes of blobs that none of its repositories counts any
 * more; undefined where the quota counts logical bytes.
 */
export async function releaseBlobs(
  tx: Transaction,
  quotaId: number,
  blobIds: readonly number[],
): Promise<number | undefined> {
  const [quota] = await tx.query<{ measure: string }>('select measure from quota where id = $1', [quotaId])
  if (quota?.measure !== 'physical') return undefined
  const rows = await tx.query<{ blob_id: number; size: number; links: number }>(
    `with held as (
       select blob_id from quota_blob where quota_id = $1 and blob_id = any($2::bigint[]) order by blob_id for update),
     gone as (select blob_id, count(*) as times from unnest($2::bigint[]) as g (blob_id) group by blob_id)
     update quota_blob b set links = b.links - gone.times from held join gone using (blob_id)
      where b.quota_id = $1 and b.blob_id = held.blob_id
     returning b.blob_id, b.size, b.links`,
    [quotaId, blobIds],
  )
  const unused = rows.filter(({ links }) => links <= 0)
  await tx.query('delete from quota_blob where quota_id = $1 and blob_id = any($2::bigint[])', [
    quotaId,
    unused.map(row => row.blob_id),
  ])
  return unused.reduce((sum, { size }) => sum + size, 0)
}
