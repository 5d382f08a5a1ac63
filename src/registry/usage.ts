import { damagedBytes } from '../metadata/blobs.ts'
import type { Database, Transaction } from '../metadata/database.ts'
import { leaveBatch } from '../metadata/quota-leaving.ts'
import { type QuotaState, claimBlobs, physicalQuotas, quotaStates, takeFree } from '../metadata/quota-slots.ts'
import type { RepositoryRow } from '../metadata/repositories.ts'
import * as rows from '../metadata/usage.ts'
import { foldUsage } from '../metadata/usage-fold.ts'
import { reservedBytes } from '../metadata/uploads.ts'
import { RegistryError } from '../oci/errors.ts'

/** What a transaction adds to a repository: links that begin to count, and a manifest that becomes visible. */
export interface Addition {
  readonly links: readonly rows.CountedLink[]
  /** Manifests that became visible, and their own size in bytes together. */
  readonly manifests?: number
  readonly manifestBytes?: number
  /** Tags that did not exist before. */
  readonly tags?: number
}

/** From this share of a quota on, pushes are told how full it is. */
const NEARLY_FULL = 0.9

/** The change of usage that an addition is. */
export function usageOf({ links, manifests = 0, manifestBytes = 0, tags = 0 }: Addition): rows.Usage {
  return {
    blobs: links.length,
    blobBytes: links.reduce((sum, { size }) => sum + size, 0),
    manifests,
    manifestBytes,
    tags,
  }
}

/**
 * Counts what a transaction adds to a repository that it holds, in its quotas too: see {@link chargeQuotas}.
 * @throws RegistryError DENIED.
 */
export async function addUsage(
  tx: Transaction,
  repository: Pick<RepositoryRow, 'id' | 'quotas'>,
  addition: Addition,
): Promise<void> {
  await rows.insertUsage(tx, repository.id, usageOf(addition))
  await chargeQuotas(tx, repository, addition)
}

/**
 * Charges the quotas of a repository that the transaction holds with what it adds: the last thing the transaction does,
 * for quotas are locked after everything else. Answers what the client should be told of quotas that are nearly full.
 * @throws RegistryError DENIED with the numbers where a quota has not so much left; nothing may be committed then.
 */
export async function chargeQuotas(
  tx: Transaction,
  { quotas }: Pick<RepositoryRow, 'quotas'>,
  addition: Addition,
): Promise<string[]> {
  const { links } = addition
  const { blobBytes, manifestBytes } = usageOf(addition)
  const physical = links.length === 0 || quotas.length === 0 ? new Set() : await physicalQuotas(tx, quotas)
  const warnings: string[] = []
  for (const quota of quotas) {
    const bytes = manifestBytes + (physical.has(quota) ? await claimBlobs(tx, quota, links) : blobBytes)
    if (bytes === 0) continue
    const state = await takeFree(tx, quota, bytes)
    if (state === undefined) continue
    if (!state.taken) throw overQuota(state, bytes)
    const used = state.used + bytes
    if (used >= state.limit * NEARLY_FULL) warnings.push(nearlyFull(state, used))
  }
  return warnings
}

/**
 * Ends the counting of manifests (their own `size` in bytes) that the transaction has locked and hidden,
 * and of the blobs that only they named. Never refused. {@link settleUsage} tells the quotas after the commit.
 */
export async function removeManifests(
  tx: Transaction,
  repositoryId: number,
  manifests: readonly { readonly id: number; readonly size: number }[],
): Promise<void> {
  const links = await rows.discountLinks(
    tx,
    repositoryId,
    manifests.map(({ id }) => id),
  )
  await rows.insertReleases(tx, [
    ...manifests.map(({ size }) => ({ repository_id: repositoryId, size })),
    ...links.map(link => ({ repository_id: repositoryId, ...link })),
  ])
}

const FOLD_BATCH = 1000

/**
 * Gives back to quotas what transactions that are committed took away from a repository. Where that fails now, the
 * background does it within seconds: what is committed must not be answered as a failure.
 */
export async function settleUsage(db: Database, repositoryId: number | undefined): Promise<void> {
  if (repositoryId === undefined) return
  try {
    const quotas = await db.query(`select id from repository where id = $1 and quotas <> '{}'`, [repositoryId])
    if (quotas.length === 0) return
    while ((await db.transaction(tx => foldUsage(tx, FOLD_BATCH, repositoryId))) === FOLD_BATCH);
  } catch {
    return
  }
}

/** What is told at once of a repository that was deleted; the background does the rest within a minute. */
const LEAVE_BATCHES = 5

/** Gives back to physical quotas what a deleted repository counted in them; see {@link settleUsage}. */
export async function settleLeaving(db: Database, repositoryId: number): Promise<void> {
  try {
    for (let batch = 0; batch < LEAVE_BATCHES; batch += 1) {
      if (!(await db.transaction(tx => leaveBatch(tx, repositoryId)))) return
    }
  } catch {
    return
  }
}

/**
 * Refuses early, and without a promise, what cannot fit: `bytes` that a client announces or has sent (1 where it does not
 * say), beside what other requests of the quotas are sending now. What is not refused here is counted when it becomes
 * a blob of the repository. So what may be the repair of a damaged blob, which counts already, is let through.
 * @throws RegistryError DENIED.
 */
export async function checkRoom(
  tx: Transaction,
  { id, quotas }: Pick<RepositoryRow, 'id' | 'quotas'>,
  bytes: number,
  uploadId?: string,
): Promise<void> {
  if (quotas.length === 0) return
  for (const state of await quotaStates(tx, quotas)) {
    const reserved = await reservedBytes(tx, state.id, uploadId)
    if (state.used + reserved + bytes <= state.limit) continue
    if (bytes <= (await damagedBytes(tx, id))) return
    throw overQuota(state, bytes, reserved)
  }
}

function overQuota({ pattern, measure, used, limit }: QuotaState, asked: number, reserved = 0): RegistryError {
  const sending = reserved === 0 ? '' : `, ${reserved} more are being sent`
  return new RegistryError('DENIED', {
    message: `the quota of ${pattern} is exceeded: ${used} of ${limit} ${measure} bytes are used${sending}, and this needs ${asked}`,
    detail: { quota: pattern, measure, used, reserved, asked, limit },
  })
}

/** Whether a refusal is for want of room in a quota. */
export function isOverQuota(error: unknown): error is RegistryError {
  if (!(error instanceof RegistryError) || error.code !== 'DENIED') return false
  return error.entries.some(({ detail }) => typeof detail === 'object' && detail !== null && 'quota' in detail)
}

function nearlyFull({ pattern, measure, limit }: QuotaState, used: number): string {
  return `the quota of ${pattern} is ${Math.floor((used / limit) * 100)} % full: ${used} of ${limit} ${measure} bytes`
}
