import { nextRun, scheduleFault } from '../jobs/cron.ts'
import {
  type NewPolicy,
  type PolicyRow,
  deletePolicy,
  findPolicy,
  listPolicies,
  lockPolicy,
  putPolicy,
} from '../metadata/retention-policies.ts'
import { RegistryError } from '../oci/errors.ts'
import { tagPatternFault } from '../oci/tag-pattern.ts'
import type { KeepRule } from '../retention/rules.ts'
import { type Actor, type AdministrationContext, administeredBy, record, requireAdmin } from './actor.ts'
import { checkPatterns } from './grant-admin.ts'
import { checkName, found } from './names.ts'
import { type Page, type PageRequest, pageOf } from './page.ts'

/** Which tags of which repositories stay. */
export interface RetentionPolicy {
  readonly name: string
  /** Of repositories. */
  readonly pattern: string
  /** Patterns of the tags that it is about. */
  readonly tags: readonly string[]
  readonly rules: readonly KeepRule[]
  /** Whether it is about manifests without a tag as well. */
  readonly untagged: boolean
  /** A run that would remove more of a repository's tags than this, in per cent, asks first. */
  readonly maxShare: number
  /** Five fields of cron; null: it runs when somebody says so. */
  readonly schedule: string | null
  /** An IANA name. */
  readonly timeZone: string
}

/** A policy as administrators see it. */
export interface RetentionPolicyInfo extends RetentionPolicy {
  readonly nextRunAt: Date | null
  readonly createdAt: Date
  readonly createdBy: string | null
}

/**
 * Adds a policy, or puts it in the place of the one of its name; plans of that one are not carried out any more. Whoever
 * administers all repositories of the pattern (and of the former) may.
 * @throws RegistryError DENIED, INVALID, CONFLICT.
 */
export async function putRetentionPolicy(
  context: AdministrationContext,
  actor: Actor,
  policy: RetentionPolicy,
): Promise<RetentionPolicyInfo> {
  const { db } = context
  const row = { ...rowOf(policy), next_run_at: nextRunOf(policy), created_by: actor.identity.name }
  await requireAdmin(db, actor, [policy.pattern])
  const isWithin = await administeredBy(db, actor)
  return await db.transaction(async tx => {
    const former = await lockPolicy(tx, row.name)
    if (former !== undefined && !isWithin([former.pattern])) throw taken(row.name)
    await putPolicy(tx, row)
    const put = found(await findPolicy(tx, row.name), `retention policy ${row.name}`)
    // Another may have added it since it was looked for, about other repositories.
    if (former === undefined && put.revision > 1) throw taken(row.name)
    await record(tx, actor, 'retention.policy', { ...policy })
    return present(put)
  })
}

function taken(name: string): RegistryError {
  return new RegistryError('CONFLICT', { message: `there is a retention policy ${name} of somebody else` })
}

function rowOf(policy: RetentionPolicy): Omit<NewPolicy, 'next_run_at' | 'created_by'> {
  const { pattern, tags, rules, untagged, maxShare, schedule, timeZone } = policy
  checkPatterns([{ pattern, actions: [] }])
  const faults = [...tags, ...rules.flatMap(rule => rule.tags ?? [])].flatMap(each => {
    const fault = tagPatternFault(each)
    return fault === undefined ? [] : `${each.slice(0, 300)}: ${fault}`
  })
  if (faults.length > 0) throw new RegistryError('INVALID', { message: faults.join('; ').slice(0, 2_000) })
  const name = checkName(policy.name, 'retention policy')
  return { name, pattern, tags, rules, untagged, max_share: maxShare, schedule, time_zone: timeZone }
}

function nextRunOf({ schedule, timeZone }: RetentionPolicy): Date | null {
  const at = { schedule: schedule ?? '0 0 * * *', timeZone }
  const fault = scheduleFault(at)
  if (fault !== undefined) throw new RegistryError('INVALID', { message: fault })
  return schedule === null ? null : (nextRun(at, new Date()) ?? null)
}

/** Policies by name: those that the actor may change. @throws RegistryError DENIED. */
export async function listRetentionPolicies(
  { db }: AdministrationContext,
  actor: Actor,
  { last, limit }: PageRequest,
): Promise<Page<RetentionPolicyInfo>> {
  const isWithin = await administeredBy(db, actor)
  const rows = await listPolicies(db, last, limit + 1)
  return pageOf(rows, limit, { key: ({ name }) => name, present, keep: ({ pattern }) => isWithin([pattern]) })
}

/** Removes a policy; what its runs did stays to be seen. @throws RegistryError DENIED, NOT_FOUND. */
export async function deleteRetentionPolicy(context: AdministrationContext, actor: Actor, name: string): Promise<void> {
  const isWithin = await administeredBy(context.db, actor)
  await context.db.transaction(async tx => {
    const row = await lockPolicy(tx, name)
    const policy = found(row !== undefined && isWithin([row.pattern]) ? row : undefined, `retention policy ${name}`)
    await deletePolicy(tx, policy.id)
    await record(tx, actor, 'retention.policy.delete', { policy: name })
  })
}

function present(row: PolicyRow): RetentionPolicyInfo {
  return {
    name: row.name,
    pattern: row.pattern,
    tags: row.tags,
    // As they were checked when the policy was put.
    rules: row.rules as readonly KeepRule[],
    untagged: row.untagged,
    maxShare: row.max_share,
    schedule: row.schedule,
    timeZone: row.time_zone,
    nextRunAt: row.next_run_at,
    createdAt: row.created_at,
    createdBy: row.created_by,
  }
}
