import type { Digest } from '../oci/digest.ts'
import type { Queryable, Transaction } from './database.ts'
import { insertStoreUsage } from './usage.ts'

/** A blob and where its bytes are. */
export interface StoredBlob {
  readonly id: number
  readonly digest: Digest
  readonly size: number
  readonly store: string
  readonly storage_key: string
}

/** How a move of content ended: nothing was left, something was, or an administrator stopped it. */
export type CopyOutcome = 'done' | 'incomplete' | 'stopped'

/** The move of content between stores that was asked for last. */
export interface StorageCopyRow {
  readonly target: string
  readonly at_once: number
  readonly bytes_per_second: number | null
  readonly requested_at: Date
  readonly requested_by: string
  readonly found_blobs: number
  readonly found_bytes: number
  readonly copied_blobs: number
  readonly copied_bytes: number
  readonly failed_blobs: number
  readonly last_failure: string | null
  readonly epoch: number
  readonly ended_at: Date | null
  readonly outcome: CopyOutcome | null
}

/** What a move has done, since it was asked for; `last_failure` says which blob and why. */
export type CopyCounts = Pick<
  StorageCopyRow,
  'found_blobs' | 'found_bytes' | 'copied_blobs' | 'copied_bytes' | 'failed_blobs' | 'last_failure'
>

/** Asks for a move. False while one is under way. */
export async function requestCopy(
  tx: Transaction,
  copy: {
    readonly target: string
    readonly atOnce: number
    readonly bytesPerSecond: number | undefined
    readonly requestedBy: string
  },
): Promise<boolean> {
  const rows = await tx.query(
    `insert into storage_copy as c (target, at_once, bytes_per_second, requested_by) values ($1, $2, $3, $4)
     on conflict (only_row) do update
        set target = excluded.target, at_once = excluded.at_once, bytes_per_second = excluded.bytes_per_second,
            requested_by = excluded.requested_by, requested_at = now(), found_blobs = 0, found_bytes = 0,
            copied_blobs = 0, copied_bytes = 0, failed_blobs = 0, last_failure = null, epoch = c.epoch + 1,
            lease_until = null, ended_at = null, outcome = null
      where c.ended_at is not null
     returning only_row`,
    [copy.target, copy.atOnce, copy.bytesPerSecond ?? null, copy.requestedBy],
  )
  return rows.length === 1
}

/** The move that was asked for last, if one ever was. */
export async function findCopy(db: Queryable): Promise<StorageCopyRow | undefined> {
  const rows = await db.query<StorageCopyRow>('select * from storage_copy')
  return rows[0]
}

/** Takes the lease of the move that is to be worked on, if nobody holds it. */
export async function takeCopy(tx: Transaction, leaseMs: number): Promise<StorageCopyRow | undefined> {
  const rows = await tx.query<StorageCopyRow>(
    `update storage_copy set epoch = epoch + 1, lease_until = clock_timestamp() + $1 * interval '1 millisecond'
      where ended_at is null and (lease_until is null or lease_until < clock_timestamp()) returning *`,
    [leaseMs],
  )
  return rows[0]
}

/** Records how far the move is and goes on holding its lease. False when it was stopped or another took it. */
export async function keepCopy(tx: Transaction, epoch: number, counts: CopyCounts, leaseMs: number): Promise<boolean> {
  const rows = await tx.query(
    `update storage_copy
        set found_blobs = $2, found_bytes = $3, copied_blobs = $4, copied_bytes = $5, failed_blobs = $6,
            last_failure = $7, lease_until = clock_timestamp() + $8 * interval '1 millisecond'
      where epoch = $1 and ended_at is null returning only_row`,
    [
      epoch,
      counts.found_blobs,
      counts.found_bytes,
      counts.copied_blobs,
      counts.copied_bytes,
      counts.failed_blobs,
      counts.last_failure,
      leaseMs,
    ],
  )
  return rows.length === 1
}

/** Ends the move at our epoch. */
export async function endCopy(tx: Transaction, epoch: number, outcome: CopyOutcome): Promise<void> {
  await tx.query(
    'update storage_copy set ended_at = clock_timestamp(), outcome = $2, lease_until = null where epoch = $1 and ended_at is null',
    [epoch, outcome],
  )
}

/** Ends the move whoever works on it, who notices with the next {@link keepCopy}. False when none is under way. */
export async function stopCopy(tx: Transaction): Promise<boolean> {
  const rows = await tx.query(
    `update storage_copy set ended_at = clock_timestamp(), outcome = 'stopped', lease_until = null
      where ended_at is null returning only_row`,
  )
  return rows.length === 1
}

/** Blobs of one store in the order of their ids, after `last`. Damaged ones are left out: there is nothing to move. */
export async function listStoredBlobs(
  db: Queryable,
  store: string,
  last: number,
  limit: number,
): Promise<readonly StoredBlob[]> {
  return await db.query<StoredBlob>(
    `select id, digest, size, store, storage_key from blob
      where store = $1 and id > $2 and damaged_at is null order by id limit $3`,
    [store, last, limit],
  )
}

/** How many blobs these stores hold, and their bytes, also damaged ones. Visits those blobs. */
export async function measureStoredBlobs(
  db: Queryable,
  stores: readonly string[],
): Promise<{ readonly blobs: number; readonly bytes: number }> {
  const [row] = await db.query<{ blobs: number; bytes: number }>(
    `select count(*) as blobs, coalesce(sum(size), 0)::bigint as bytes from blob
      where store = any($1::text[])`,
    [stores],
  )
  return row ?? { blobs: 0, bytes: 0 }
}

/** Where content is being copied to; `was` is the key of the state before, which this one replaces. */
export interface CopyDraft {
  readonly store: string
  readonly key: string
  readonly state: unknown
  readonly was: string | undefined
}

/**
 * Puts content that is being copied into the trash before it is whole: only {@link moveBlob} takes it out again, so that
 * a process that dies leaves nothing behind. Due after `draftMs`. False when the state before is being purged already.
 */
export async function holdDraft(tx: Transaction, draft: CopyDraft, draftMs: number): Promise<boolean> {
  if (draft.was !== undefined) {
    const gone = await tx.query(
      'delete from trash where store = $1 and storage_key = $2 and purging_at is null returning store',
      [draft.store, draft.was],
    )
    if (gone.length === 0) return false
  }
  await tx.query(
    `insert into trash (store, storage_key, state, purge_after)
     values ($1, $2, $3, clock_timestamp() + $4 * interval '1 millisecond')`,
    [draft.store, draft.key, JSON.stringify(draft.state), draftMs],
  )
  return true
}

/** Makes content that nobody will finish due in a minute, when no request of its writer is on its way any more. */
export async function dropDraft(tx: Transaction, store: string, key: string): Promise<void> {
  await tx.query(
    `update trash set purge_after = clock_timestamp() + interval '1 minute'
      where store = $1 and storage_key = $2 and purging_at is null`,
    [store, key],
  )
}

/** What {@link moveBlob} found: it moved the blob; the blob is not where it was; the copy is being purged already. */
export type MoveResult = 'moved' | 'changed' | 'late'

/**
 * Points a blob that is still where it was to its copy: the copy leaves the trash and the old bytes go there for
 * `graceMs`, so that whoever reads them can go on. Anything but `moved` must roll the transaction back.
 */
export async function moveBlob(
  tx: Transaction,
  blob: StoredBlob,
  to: { readonly store: string; readonly key: string },
  graceMs: number,
): Promise<MoveResult> {
  const moved = await tx.query(
    `with old as (
       select id, store, storage_key, digest, size from blob
        where id = $1 and store = $2 and storage_key = $3 and damaged_at is null for update),
     moved as (
       -- Whoever removed the last link meanwhile could not mark the row, because it is held here: the collector looks.
       update blob b set store = $4, storage_key = $5, unlinked_at = clock_timestamp() from old where b.id = old.id)
     insert into trash (store, storage_key, digest, size, purge_after)
     select store, storage_key, digest, size, clock_timestamp() + $6 * interval '1 millisecond' from old
     returning storage_key`,
    [blob.id, blob.store, blob.storage_key, to.store, to.key, graceMs],
  )
  if (moved.length === 0) return 'changed'
  const taken = await tx.query(
    'delete from trash where store = $1 and storage_key = $2 and purging_at is null returning store',
    [to.store, to.key],
  )
  await insertStoreUsage(tx, [
    { store: blob.store, blobs: -1, bytes: -blob.size },
    { store: to.store, blobs: 1, bytes: blob.size },
  ])
  return taken.length === 1 ? 'moved' : 'late'
}
