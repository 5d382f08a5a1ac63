import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Queryable, Transaction } from './database.ts'

/** A blob that one process fetches for all. */
export interface MirrorFetchRow {
  /** New with every owner. */
  readonly id: string
  /** What a request to the owner is signed with. */
  readonly key: string
  /** The owner's internal address. */
  readonly address: string | null
  /** The directory in which the owner keeps the bytes, and the file's name there once it is known. */
  readonly directory: string | null
  readonly file: string | null
  /** Bytes of the whole, once they are known. */
  readonly size: number | null
}

const COLUMNS = 'id, key, address, directory, file, size'

/** Makes a fetch ours, where nobody's lease on it runs or its owner is `dead`. False where another has it. */
export async function takeMirrorFetch(
  tx: Transaction,
  fetch: {
    readonly repository: RepositoryName
    readonly digest: Digest
    readonly id: string
    readonly key: string
    readonly address: string | undefined
    readonly directory: string | undefined
    readonly leaseMs: number
    /** The id under which the owner was found to be gone. */
    readonly dead: string | undefined
  },
): Promise<boolean> {
  const rows = await tx.query(
    `insert into mirror_fetch as f (repository, digest, id, key, address, directory, lease_until)
     values ($1, $2, $3, $4, $5, $6, clock_timestamp() + $7 * interval '1 millisecond')
     on conflict (repository, digest) do update
        set id = excluded.id, key = excluded.key, address = excluded.address, directory = excluded.directory,
            file = null, size = null, lease_until = excluded.lease_until
      where f.lease_until < clock_timestamp() or f.id = $8::uuid
     returning id`,
    [
      fetch.repository,
      fetch.digest,
      fetch.id,
      fetch.key,
      fetch.address ?? null,
      fetch.directory ?? null,
      fetch.leaseMs,
      fetch.dead ?? null,
    ],
  )
  return rows.length === 1
}

/** The fetch of a blob whose owner's lease runs. */
export async function findMirrorFetch(
  db: Queryable,
  repository: RepositoryName,
  digest: Digest,
): Promise<MirrorFetchRow | undefined> {
  const rows = await db.query<MirrorFetchRow>(
    `select ${COLUMNS} from mirror_fetch where repository = $1 and digest = $2 and lease_until > clock_timestamp()`,
    [repository, digest],
  )
  return rows[0]
}

/** Goes on holding a lease. False where another took it. */
export async function keepMirrorFetch(
  tx: Transaction,
  fetch: {
    readonly repository: RepositoryName
    readonly digest: Digest
    readonly id: string
    readonly leaseMs: number
  },
): Promise<boolean> {
  const rows = await tx.query(
    `update mirror_fetch set lease_until = clock_timestamp() + $4 * interval '1 millisecond'
      where repository = $1 and digest = $2 and id = $3 returning id`,
    [fetch.repository, fetch.digest, fetch.id, fetch.leaseMs],
  )
  return rows.length === 1
}

/** Says where the bytes of a fetch that is still ours lie. */
export async function placeMirrorFetch(
  tx: Transaction,
  repository: RepositoryName,
  digest: Digest,
  place: { readonly id: string; readonly file: string; readonly size: number },
): Promise<void> {
  await tx.query('update mirror_fetch set file = $4, size = $5 where repository = $1 and digest = $2 and id = $3', [
    repository,
    digest,
    place.id,
    place.file,
    place.size,
  ])
}

/** Lets go of a fetch, if it is still ours. */
export async function removeMirrorFetch(
  tx: Transaction,
  repository: RepositoryName,
  digest: Digest,
  id: string,
): Promise<void> {
  await tx.query('delete from mirror_fetch where repository = $1 and digest = $2 and id = $3', [repository, digest, id])
}

/** Removes what owners left behind whose lease ended `olderMs` ago; answers how much. */
export async function removeEndedMirrorFetches(tx: Transaction, olderMs: number): Promise<number> {
  const rows = await tx.query(
    `delete from mirror_fetch where lease_until < clock_timestamp() - $1 * interval '1 millisecond' returning id`,
    [olderMs],
  )
  return rows.length
}

/** Files that owners keep in a directory now. */
export async function listMirrorFetchFiles(db: Queryable, directory: string): Promise<readonly string[]> {
  const rows = await db.query<{ file: string }>(
    'select file from mirror_fetch where directory = $1 and file is not null',
    [directory],
  )
  return rows.map(({ file }) => file)
}
