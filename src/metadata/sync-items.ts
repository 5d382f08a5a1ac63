import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Queryable, Transaction } from './database.ts'

/** What came of an image. `to-copy`: it would be copied by a run that does not only look. */
export type SyncOutcome = 'copied' | 'up-to-date' | 'to-copy' | 'skipped' | 'failed'

/** An image of a run, by its name at the source; one with an empty tag is the repository as a whole. */
export interface SyncItemRow {
  readonly repository: string
  readonly tag: string
  /** The repository's name at the target. */
  readonly target: string
  readonly digest: string | null
  /** Null: nothing yet. */
  readonly outcome: SyncOutcome | null
  readonly reason: string | null
  /** What was moved for it, in bytes also while it is under way. */
  readonly manifests: number
  readonly blobs: number
  readonly bytes: number
}

const COLUMNS = 'repository, tag, target, digest, outcome, reason, manifests, blobs, bytes'

/** Keeps the images of one repository; what is kept already stays as it is. */
export async function insertSyncItems(
  tx: Transaction,
  runId: number,
  of: { readonly repository: string; readonly target: string },
  tags: readonly string[],
): Promise<void> {
  await tx.query(
    `insert into sync_item (run_id, repository, target, tag) select $1, $2, $3, * from unnest($4::text[])
     on conflict do nothing`,
    [runId, of.repository, of.target, tags],
  )
}

/** Keeps an image or repository with what came of it. */
export async function insertEndedItem(
  tx: Transaction,
  runId: number,
  item: Pick<SyncItemRow, 'repository' | 'tag' | 'target' | 'outcome' | 'reason'>,
): Promise<void> {
  await tx.query(
    `insert into sync_item (run_id, repository, tag, target, outcome, reason) values ($1, $2, $3, $4, $5, $6)
     on conflict do nothing`,
    [runId, item.repository, item.tag, item.target, item.outcome, item.reason],
  )
}

/** Which image. */
export type SyncItemKey = Pick<SyncItemRow, 'repository' | 'tag'>

/** The next images after `last` of which nothing has come yet. */
export async function nextSyncItems(
  db: Queryable,
  runId: number,
  last: SyncItemKey,
  limit: number,
): Promise<readonly SyncItemRow[]> {
  return await db.query<SyncItemRow>(
    `select ${COLUMNS} from sync_item
      where run_id = $1 and outcome is null and (repository, tag) > ($2, $3)
      order by repository, tag limit $4`,
    [runId, last.repository, last.tag, limit],
  )
}

/** Keeps what came of an image. */
export async function setSyncOutcome(tx: Transaction, runId: number, item: Omit<SyncItemRow, 'target'>): Promise<void> {
  await tx.query(
    `update sync_item set outcome = $4, reason = $5, digest = $6, manifests = $7, blobs = $8, bytes = $9
      where run_id = $1 and repository = $2 and tag = $3`,
    [runId, item.repository, item.tag, item.outcome, item.reason, item.digest, item.manifests, item.blobs, item.bytes],
  )
}

/** Keeps how many bytes were moved so far for images under way. */
export async function setSyncProgress(
  tx: Transaction,
  runId: number,
  items: readonly (SyncItemKey & { readonly bytes: number })[],
): Promise<void> {
  if (items.length === 0) return
  await tx.query(
    `update sync_item i set bytes = p.bytes
       from unnest($2::text[], $3::text[], $4::bigint[]) as p (repository, tag, bytes)
      where i.run_id = $1 and i.repository = p.repository and i.tag = p.tag and i.outcome is null`,
    [runId, items.map(item => item.repository), items.map(item => item.tag), items.map(item => item.bytes)],
  )
}

/** Images of a run by their names, after `last`; only those with an outcome, where one is given. */
export async function listSyncItems(
  db: Queryable,
  runId: number,
  outcome: SyncOutcome | undefined,
  last: SyncItemKey,
  limit: number,
): Promise<readonly SyncItemRow[]> {
  return await db.query<SyncItemRow>(
    `select ${COLUMNS} from sync_item
      where run_id = $1 and ($2::text is null or outcome = $2) and (repository, tag) > ($3, $4)
      order by repository, tag limit $5`,
    [runId, outcome ?? null, last.repository, last.tag, limit],
  )
}

/** The session in which a blob is on its way into a repository. */
export async function findSyncUpload(
  db: Queryable,
  repository: RepositoryName,
  digest: Digest,
): Promise<string | undefined> {
  const rows = await db.query<{ upload_id: string }>(
    `select upload_id from sync_upload s join upload u on u.id = s.upload_id
      where s.repository = $1 and s.digest = $2 and u.expires_at > clock_timestamp()`,
    [repository, digest],
  )
  return rows[0]?.upload_id
}

/** Keeps the session in which a blob is on its way, in the place of the one before. */
export async function putSyncUpload(
  tx: Transaction,
  repository: RepositoryName,
  digest: Digest,
  uploadId: string,
): Promise<void> {
  await tx.query(
    `insert into sync_upload (repository, digest, upload_id) values ($1, $2, $3)
     on conflict (repository, digest) do update set upload_id = excluded.upload_id`,
    [repository, digest, uploadId],
  )
}
