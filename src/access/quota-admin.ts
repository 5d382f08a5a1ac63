import { patternFault, patternRegex } from '../oci/repository-pattern.ts'
import * as rows from '../metadata/quotas.ts'
import { RegistryError } from '../oci/errors.ts'
import { type Actor, type AdministrationContext, administeredBy, record, requireAdmin } from './actor.ts'
import { found } from './names.ts'
import { type Page, type PageRequest, pageOf } from './page.ts'

/** Which limit of a pattern: on bytes with each blob once a repository, or once for all repositories of the pattern. */
export interface QuotaKey {
  readonly pattern: string
  readonly measure: 'logical' | 'physical'
}

/** A quota as administrators see it. */
export interface QuotaInfo extends QuotaKey {
  readonly limitBytes: number
  readonly usedBytes: number
  /** False while what was there before the quota is being counted. */
  readonly counted: boolean
  readonly createdAt: Date
  readonly createdBy: string | null
}

/**
 * Limits what the repositories of a pattern may use together, also below what they use now; counts what is there. Only
 * for administrators of the registry: a project must not widen its own limit. @throws RegistryError DENIED, INVALID.
 */
export async function setQuota(
  context: AdministrationContext,
  actor: Actor,
  { pattern, measure }: QuotaKey,
  limitBytes: number,
): Promise<QuotaInfo> {
  const fault = patternFault(pattern)
  if (fault !== undefined) throw new RegistryError('INVALID', { message: `${pattern.slice(0, 300)}: ${fault}` })
  const { db } = context
  await requireAdmin(db, actor)
  await db.transaction(async tx => {
    const quota = { pattern, measure, limit_bytes: limitBytes, regex: patternRegex(pattern) }
    await rows.putQuota(tx, { ...quota, created_by: actor.identity.name })
    await record(tx, actor, 'quota.set', { pattern, measure, limitBytes })
  })
  await rows.countQuotas(db)
  return present(found(await rows.findQuota(db, pattern, measure), `${measure} quota of ${pattern}`))
}

/** Quotas by pattern: those of what the actor administers. @throws RegistryError DENIED. */
export async function listQuotas(
  context: AdministrationContext,
  actor: Actor,
  { last, limit }: PageRequest,
): Promise<Page<QuotaInfo>> {
  const isWithin = await administeredBy(context.db, actor)
  const [pattern = '', measure = ''] = last.split(' ')
  const quotas = await rows.listQuotas(context.db, { pattern, measure }, limit + 1)
  return pageOf(quotas, limit, {
    key: row => `${row.pattern} ${row.measure}`,
    present,
    keep: row => isWithin([row.pattern]),
  })
}

/** One quota with its use. @throws RegistryError DENIED, NOT_FOUND. */
export async function showQuota(context: AdministrationContext, actor: Actor, key: QuotaKey): Promise<QuotaInfo> {
  const isWithin = await administeredBy(context.db, actor)
  const quota = isWithin([key.pattern]) ? await rows.findQuota(context.db, key.pattern, key.measure) : undefined
  return present(found(quota, `${key.measure} quota of ${key.pattern}`))
}

/** Removes a quota. @throws RegistryError DENIED, NOT_FOUND. */
export async function deleteQuota(
  context: AdministrationContext,
  actor: Actor,
  { pattern, measure }: QuotaKey,
): Promise<void> {
  await requireAdmin(context.db, actor)
  await context.db.transaction(async tx => {
    found((await rows.deleteQuota(tx, pattern, measure)) || undefined, `${measure} quota of ${pattern}`)
    await record(tx, actor, 'quota.delete', { pattern, measure })
  })
}

function present(row: rows.QuotaRow): QuotaInfo {
  return {
    pattern: row.pattern,
    measure: row.measure,
    limitBytes: row.limit_bytes,
    usedBytes: row.used_bytes,
    counted: row.counted_at !== null,
    createdAt: row.created_at,
    createdBy: row.created_by,
  }
}
