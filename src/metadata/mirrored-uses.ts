import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Transaction } from './database.ts'

/** That a copy was asked for. */
export interface MirroredUse {
  readonly prefix: string
  readonly repository: RepositoryName
  readonly digest: Digest
  readonly isBlob: boolean
  /** How long ago, in milliseconds. */
  readonly agoMs: number
}

/** Notes uses in one statement, whose order is the same in every process; times only move forward. */
export async function noteUses(tx: Transaction, uses: readonly MirroredUse[]): Promise<void> {
  await tx.query(
    `insert into mirrored_use as m (repository_id, digest, prefix, is_blob, used_at)
     select r.id, u.digest, max(u.prefix), bool_and(u.is_blob), clock_timestamp() - min(u.ago) * interval '1 millisecond'
       from unnest($1::text[], $2::text[], $3::text[], $4::boolean[], $5::float8[])
         as u (name, digest, prefix, is_blob, ago)
       join repository r on r.name = u.name and r.deleted_at is null
      group by r.id, u.digest order by r.id, u.digest
     on conflict (repository_id, digest) do update
        set used_at = greatest(m.used_at, excluded.used_at), prefix = excluded.prefix`,
    [
      uses.map(({ repository }) => repository),
      uses.map(({ digest }) => digest),
      uses.map(({ prefix }) => prefix),
      uses.map(({ isBlob }) => isBlob),
      uses.map(({ agoMs }) => agoMs),
    ],
  )
}

/** Forgets up to `limit` uses older than `ageMs`; answers how many. What is still there is found again when there is no room. */
export async function pruneUses(tx: Transaction, ageMs: number, limit: number): Promise<number> {
  const rows = await tx.query(
    `delete from mirrored_use where (repository_id, digest) in (
       select repository_id, digest from mirrored_use
        where used_at < statement_timestamp() - $1 * interval '1 millisecond'
        order by used_at limit $2 for update skip locked)
     returning digest`,
    [ageMs, limit],
  )
  return rows.length
}
