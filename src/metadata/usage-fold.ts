import type { Transaction } from './database.ts'
import { giveBack, releaseBlobs } from './quota-slots.ts'

interface Delta {
  readonly id: number
  readonly repository_id: number | null
  readonly store: string | null
  readonly blob_id: number | null
  readonly blobs: number
  readonly blob_bytes: number
  readonly manifests: number
  readonly manifest_bytes: number
  readonly tags: number
  readonly settled: boolean
}

interface Counted {
  readonly id: number
  readonly quotas: readonly number[]
  readonly leaving: readonly number[]
  readonly left_until: number
}

interface Sum {
  blobs: number
  blob_bytes: number
  manifests: number
  manifest_bytes: number
  tags: number
}

/**
 * Puts up to `limit` changes (of one repository, where named) into the counters, and gives back to quotas what they have
 * not been told yet. Answers how many. Several at once take different rows. Locks rows of changes, repositories by id
 * (so that none enters or leaves a quota meanwhile), counters by repository, then quotas by id.
 */
export async function foldUsage(tx: Transaction, limit: number, repositoryId?: number): Promise<number> {
  const deltas = await tx.query<Delta>(
    `select id, repository_id, store, blob_id, blobs, blob_bytes, manifests, manifest_bytes, tags, settled
       from usage_delta where $2::bigint is null or repository_id = $2
      order by id limit $1 for update skip locked`,
    [limit, repositoryId ?? null],
  )
  if (deltas.length === 0) return 0
  const repositoryIds = [...new Set(deltas.flatMap(({ repository_id: id }) => id ?? []))]
  const repositories = await tx.query<Counted>(
    'select id, quotas, leaving, left_until from repository where id = any($1::bigint[]) order by id for key share',
    [repositoryIds],
  )
  await addToRepositories(
    tx,
    sumBy(deltas, ({ repository_id: id }) => id ?? undefined),
    repositories,
  )
  await addToStores(
    tx,
    sumBy(deltas, ({ store }) => store ?? undefined),
  )
  await tx.query('delete from usage_delta where id = any($1::bigint[])', [deltas.map(({ id }) => id)])
  await tellQuotas(tx, deltas, new Map(repositories.map(row => [row.id, row])))
  return deltas.length
}

function sumBy<K>(deltas: readonly Delta[], keyOf: (delta: Delta) => K | undefined): Map<K, Sum> {
  const sums = new Map<K, Sum>()
  for (const delta of deltas) {
    const key = keyOf(delta)
    if (key === undefined) continue
    const sum = sums.get(key) ?? { blobs: 0, blob_bytes: 0, manifests: 0, manifest_bytes: 0, tags: 0 }
    sum.blobs += delta.blobs
    sum.blob_bytes += delta.blob_bytes
    sum.manifests += delta.manifests
    sum.manifest_bytes += delta.manifest_bytes
    sum.tags += delta.tags
    sums.set(key, sum)
  }
  return sums
}

async function addToRepositories(
  tx: Transaction,
  sums: ReadonlyMap<number, Sum>,
  living: readonly { readonly id: number }[],
): Promise<void> {
  const rows = living.flatMap(({ id }) => {
    const sum = sums.get(id)
    return sum === undefined ? [] : [{ id, ...sum }]
  })
  if (rows.length === 0) return
  await tx.query(
    `insert into repository_usage as u (repository_id, blobs, blob_bytes, manifests, manifest_bytes, tags)
     select * from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
            as s (id, blobs, blob_bytes, manifests, manifest_bytes, tags) order by id
     on conflict (repository_id) do update
        set blobs = u.blobs + excluded.blobs, blob_bytes = u.blob_bytes + excluded.blob_bytes,
            manifests = u.manifests + excluded.manifests, manifest_bytes = u.manifest_bytes + excluded.manifest_bytes,
            tags = u.tags + excluded.tags`,
    [
      rows.map(row => row.id),
      rows.map(row => row.blobs),
      rows.map(row => row.blob_bytes),
      rows.map(row => row.manifests),
      rows.map(row => row.manifest_bytes),
      rows.map(row => row.tags),
    ],
  )
}

async function addToStores(tx: Transaction, sums: ReadonlyMap<string, Sum>): Promise<void> {
  if (sums.size === 0) return
  const rows = [...sums.entries()]
  await tx.query(
    `insert into store_usage as u (store, blobs, bytes)
     select * from unnest($1::text[], $2::bigint[], $3::bigint[]) as s (store, blobs, bytes) order by store
     on conflict (store) do update set blobs = u.blobs + excluded.blobs, bytes = u.bytes + excluded.bytes`,
    [rows.map(([store]) => store), rows.map(([, sum]) => sum.blobs), rows.map(([, sum]) => sum.blob_bytes)],
  )
}

async function tellQuotas(
  tx: Transaction,
  deltas: readonly Delta[],
  repositories: ReadonlyMap<number, Counted>,
): Promise<void> {
  const untold = deltas.filter(({ settled }) => !settled)
  const byQuota = new Map<number, Delta[]>()
  for (const delta of untold) {
    const repository = repositories.get(delta.repository_id ?? -1)
    if (repository === undefined) continue
    // Of a repository that was deleted, quotas count the links that they were not told of.
    const isLeft = delta.blob_id !== null && delta.blob_id > repository.left_until
    for (const quota of [...repository.quotas, ...(isLeft ? repository.leaving : [])]) {
      byQuota.set(quota, [...(byQuota.get(quota) ?? []), delta])
    }
  }
  for (const [quota, changes] of [...byQuota].toSorted(([a], [b]) => a - b)) {
    const whole = changes.reduce((sum, delta) => sum + delta.blob_bytes + delta.manifest_bytes, 0)
    const links = changes.flatMap(({ blob_id: id }) => id ?? [])
    const manifests = changes.reduce((sum, delta) => sum + delta.manifest_bytes, 0)
    const physical = await releaseBlobs(tx, quota, links)
    await giveBack(tx, quota, physical === undefined ? -whole : physical - manifests)
  }
}
