import type { RepositoryName } from '../oci/name.ts'
import type { Queryable, Transaction } from './database.ts'
import type { RepositoryRow } from './repositories.ts'

/** Digests of the first `offset` bytes by algorithm; an algorithm that was not followed is absent. */
export type PrefixDigests = Readonly<Partial<Record<'sha256' | 'sha512', string>>>

/** One upload session. */
export interface UploadRow {
  readonly id: string
  readonly repository_id: number
  readonly offset: number
  readonly epoch: number
  readonly store: string
  readonly store_state: unknown
  readonly prefix_digest: PrefixDigests
}

const COLUMNS = 'u.id, u.repository_id, u."offset", u.epoch, u.store, u.store_state, u.prefix_digest'

/** Opens a session. */
export async function insertUpload(
  tx: Transaction,
  upload: {
    readonly id: string
    readonly repositoryId: number
    readonly store: string
    readonly state: unknown
    readonly expiryMs: number
    readonly principal: string | undefined
  },
): Promise<void> {
  await tx.query(
    `insert into upload (id, repository_id, expires_at, store, store_state, prefix_digest, principal)
     values ($1, $2, clock_timestamp() + $3 * interval '1 millisecond', $4, $5, '{}', $6)`,
    [
      upload.id,
      upload.repositoryId,
      upload.expiryMs,
      upload.store,
      JSON.stringify(upload.state),
      upload.principal ?? null,
    ],
  )
}

/** A session with what matters of its repository. */
export interface FoundUpload extends UploadRow, Pick<RepositoryRow, 'uses_sha512' | 'quotas'> {
  readonly busy: boolean
}

/** An unexpired session of that repository. */
export async function findUpload(
  db: Queryable,
  repository: RepositoryName,
  id: string,
): Promise<FoundUpload | undefined> {
  const rows = await db.query<FoundUpload>(
    `select ${COLUMNS}, r.uses_sha512, r.quotas,
            coalesce(u.lease_until > clock_timestamp(), false) as busy
       from upload u join repository r on r.id = u.repository_id
      where u.id = $1 and r.name = $2 and r.deleted_at is null and u.expires_at > clock_timestamp()`,
    [id, repository],
  )
  return rows[0]
}

/** A session whose lease was just taken. */
export interface TakenUpload extends UploadRow {
  /** The writer before never let go of the lease, it ran out: that writer is dead, or it is late. */
  readonly abandoned: boolean
}

/** Takes a session's lease and raises its epoch, if nobody holds it. The offset is what the winner goes on from. */
export async function takeUpload(tx: Transaction, id: string, leaseMs: number): Promise<TakenUpload | undefined> {
  const rows = await tx.query<TakenUpload>(
    `with free as (
       select id, lease_until is not null as abandoned from upload
        where id = $1 and expires_at > clock_timestamp()
          and (lease_until is null or lease_until < clock_timestamp()) for update)
     update upload u
        set epoch = u.epoch + 1, lease_until = clock_timestamp() + $2 * interval '1 millisecond'
       from free where u.id = free.id
      returning ${COLUMNS}, free.abandoned`,
    [id, leaseMs],
  )
  return rows[0]
}

/**
 * Gives a session whose lease is ours another write state, and the bytes of the old one to the trash. False when the
 * session is gone or another took it.
 */
export async function moveUpload(
  tx: Transaction,
  move: { readonly id: string; readonly epoch: number; readonly state: unknown; readonly graceMs: number },
): Promise<boolean> {
  const rows = await tx.query(
    `with old as (
       select id, store, store_state, "offset" from upload where id = $1 and epoch = $2 for update),
     moved as (update upload u set store_state = $3 from old where u.id = old.id)
     insert into trash (store, storage_key, state, size, purge_after)
     select store, store_state ->> 'key', store_state, "offset",
            clock_timestamp() + $4 * interval '1 millisecond' from old
     returning storage_key`,
    [move.id, move.epoch, JSON.stringify(move.state), move.graceMs],
  )
  return rows.length === 1
}

/** The right of one writer to one session. */
export interface HeldUpload {
  readonly id: string
  readonly epoch: number
}

/**
 * Goes on holding these leases. Answers which were `kept`, and which are still `present` at their epoch: one that is
 * present and not kept is locked by a transaction under way, and nobody waits for that.
 */
export async function keepUploads(
  tx: Transaction,
  held: readonly HeldUpload[],
  leaseMs: number,
): Promise<{ readonly kept: ReadonlySet<string>; readonly present: ReadonlySet<string> }> {
  const rows = await tx.query<{ id: string; kept: boolean }>(
    `with held as (select * from unnest($1::uuid[], $2::bigint[]) as h (id, epoch)),
     free as (
       select u.id from upload u join held h on u.id = h.id and u.epoch = h.epoch for update of u skip locked),
     kept as (
       update upload u set lease_until = clock_timestamp() + $3 * interval '1 millisecond'
         from free where u.id = free.id returning u.id)
     select u.id, k.id is not null as kept
       from upload u join held h on u.id = h.id and u.epoch = h.epoch left join kept k on k.id = u.id`,
    [held.map(upload => upload.id), held.map(upload => upload.epoch), leaseMs],
  )
  return {
    kept: new Set(rows.filter(row => row.kept).map(row => row.id)),
    present: new Set(rows.map(row => row.id)),
  }
}

/** Records what is durable. False when the session is gone or another took it. */
export async function saveUpload(
  tx: Transaction,
  upload: {
    readonly id: string
    readonly epoch: number
    readonly offset: number
    readonly state: unknown
    readonly prefix: PrefixDigests
    readonly expiryMs: number
  },
): Promise<boolean> {
  const rows = await tx.query(
    `update upload set "offset" = $3, store_state = $4, prefix_digest = $5,
            expires_at = clock_timestamp() + $6 * interval '1 millisecond'
      where id = $1 and epoch = $2 returning id`,
    [
      upload.id,
      upload.epoch,
      upload.offset,
      JSON.stringify(upload.state),
      JSON.stringify(upload.prefix),
      upload.expiryMs,
    ],
  )
  return rows.length === 1
}

/** Lets go of the lease, if it is still ours. */
export async function releaseUpload(tx: Transaction, id: string, epoch: number): Promise<void> {
  await tx.query('update upload set lease_until = null, reserved = 0 where id = $1 and epoch = $2', [id, epoch])
}

/** Frees every lease. Only for an index that no other process can have open, right after it was opened. */
export async function releaseAllUploads(tx: Transaction): Promise<void> {
  await tx.query('update upload set lease_until = null, reserved = 0 where lease_until is not null')
}

/** Removes the session at our epoch, which is the right to finish it. False when another finished or cancelled it. */
export async function removeUpload(tx: Transaction, id: string, epoch: number): Promise<boolean> {
  const rows = await tx.query('delete from upload where id = $1 and epoch = $2 returning id', [id, epoch])
  return rows.length === 1
}

/** Removes a session whoever writes to it, and moves its bytes to the trash. False when there is none. */
export async function discardUpload(tx: Transaction, id: string, graceMs: number): Promise<boolean> {
  const rows = await tx.query(
    `with gone as (delete from upload where id = $1 returning store, store_state, "offset")
     insert into trash (store, storage_key, state, size, purge_after)
     select store, store_state ->> 'key', store_state, "offset",
            clock_timestamp() + $2 * interval '1 millisecond' from gone
     returning storage_key`,
    [id, graceMs],
  )
  return rows.length === 1
}

/** Moves up to `limit` expired sessions that nobody writes to into the trash; answers how many. */
export async function discardExpiredUploads(tx: Transaction, limit: number, graceMs: number): Promise<number> {
  const rows = await tx.query(
    `with due as (
       select id from upload
        where expires_at < statement_timestamp() and (lease_until is null or lease_until < clock_timestamp())
        order by expires_at limit $1 for update skip locked),
     gone as (delete from upload u using due where u.id = due.id returning u.store, u.store_state, u."offset")
     insert into trash (store, storage_key, state, size, purge_after)
     select store, store_state ->> 'key', store_state, "offset",
            clock_timestamp() + $2 * interval '1 millisecond' from gone
     returning storage_key`,
    [limit, graceMs],
  )
  return rows.length
}

/** Notes what a session's writer announced or has sent, in bytes, until it lets go of the lease or that runs out. */
export async function reserveUpload(tx: Transaction, id: string, epoch: number, bytes: number): Promise<void> {
  await tx.query('update upload set reserved = $3 where id = $1 and epoch = $2', [id, epoch, bytes])
}

/** What is being sent now, in bytes, to repositories that a quota counts; without the session `except`. */
export async function reservedBytes(db: Queryable, quotaId: number, except: string | undefined): Promise<number> {
  const [row] = await db.query<{ bytes: number }>(
    `select coalesce(sum(u.reserved), 0)::bigint as bytes from upload u join repository r on r.id = u.repository_id
      where u.reserved > 0 and u.lease_until > clock_timestamp() and r.quotas @> array[$1::bigint]
        and u.id is distinct from $2::uuid`,
    [quotaId, except ?? null],
  )
  return row?.bytes ?? 0
}
