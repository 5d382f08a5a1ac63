import type { Transaction } from '../metadata/database.ts'
import { findGroup } from '../metadata/groups.ts'
import { findPrincipal } from '../metadata/principals.ts'
import * as rows from '../metadata/tag-rules.ts'
import { RegistryError } from '../oci/errors.ts'
import { tagPatternFault } from '../oci/tag-pattern.ts'
import { type Actor, type AdministrationContext, administeredBy, record, requireAdmin } from './actor.ts'
import { checkPatterns } from './grant-admin.ts'
import { checkName, found } from './names.ts'
import { type Page, type PageRequest, pageOf } from './page.ts'

/** Every push of a tag reads the rules. */
const MAX_RULES = 500
const GROUP = 'group:'

/** Which tags of which repositories must not change, or only by some. */
export interface TagRule {
  /** Of repositories. */
  readonly pattern: string
  /** A glob, or a regular expression between slashes. */
  readonly tags: string
  /** Once there, neither moved nor deleted by anybody. */
  readonly immutable: boolean
  /** Created, moved and deleted by {@link writers} only. */
  readonly protected: boolean
  /** Whether retention may remove such tags all the same. */
  readonly mayExpire: boolean
  /** Principals by name, groups as `group:NAME`. */
  readonly writers: readonly string[]
}

/** A rule as administrators see it. */
export interface TagRuleInfo extends TagRule {
  readonly name: string
  readonly createdAt: Date
  readonly createdBy: string | null
}

/**
 * Adds a rule, named by its number without a name of its own. Once it is added no transaction commits that breaks it.
 * Whoever administers all the repositories it is about may.
 * @throws RegistryError DENIED, INVALID, NOT_FOUND, CONFLICT.
 */
export async function addTagRule(
  context: AdministrationContext,
  actor: Actor,
  rule: TagRule & { readonly name?: string },
): Promise<{ readonly name: string }> {
  checkRule(rule)
  await requireAdmin(context.db, actor, [rule.pattern])
  const { pattern, tags, immutable, mayExpire, writers } = rule
  return await context.db.transaction(async tx => {
    const ids = await writerIds(tx, writers)
    await rows.lockTagRules(tx)
    if ((await rows.countTagRules(tx)) >= MAX_RULES) {
      throw new RegistryError('CONFLICT', { message: `there are ${MAX_RULES} tag rules already, which is the most` })
    }
    const name = await rows.insertTagRule(tx, {
      ...ids,
      name: rule.name,
      pattern,
      tags,
      immutable,
      protected: rule.protected,
      mayExpire,
      createdBy: actor.identity.name,
    })
    if (name === undefined) {
      throw new RegistryError('CONFLICT', { message: `there is a tag rule ${rule.name ?? ''} already` })
    }
    await record(tx, actor, 'tag-rule.add', { ...rule, rule: name })
    return { name }
  })
}

function checkRule(rule: TagRule & { readonly name?: string }): void {
  if (rule.name !== undefined) checkName(rule.name, 'tag rule')
  checkPatterns([{ pattern: rule.pattern, actions: [] }])
  const fault = tagPatternFault(rule.tags) ?? contradiction(rule)
  if (fault !== undefined) throw new RegistryError('INVALID', { message: fault })
}

function contradiction({ immutable, protected: isProtected, writers }: TagRule): string | undefined {
  if (!immutable && !isProtected) return 'a tag rule makes tags immutable, or protected, or both'
  if (writers.length > 0 && !isProtected) return 'only a rule that protects tags has writers'
  return undefined
}

async function writerIds(
  tx: Transaction,
  writers: readonly string[],
): Promise<{ principalIds: number[]; groupIds: number[] }> {
  const principalIds: number[] = []
  const groupIds: number[] = []
  for (const writer of writers) {
    if (writer.startsWith(GROUP)) {
      groupIds.push(found(await findGroup(tx, writer.slice(GROUP.length)), `group ${writer.slice(GROUP.length)}`).id)
    } else {
      principalIds.push(found(await findPrincipal(tx, writer), `principal ${writer}`).id)
    }
  }
  return { principalIds, groupIds }
}

/** Rules by name: those that the actor may remove. @throws RegistryError DENIED. */
export async function listTagRules(
  { db }: AdministrationContext,
  actor: Actor,
  { last, limit }: PageRequest,
): Promise<Page<TagRuleInfo>> {
  const isWithin = await administeredBy(db, actor)
  const rules = await rows.listTagRules(db, last, limit + 1)
  return pageOf(rules, limit, { key: ({ name }) => name, present, keep: ({ pattern }) => isWithin([pattern]) })
}

function present(row: rows.TagRuleWithWriters): TagRuleInfo {
  const { name, pattern, tags, immutable, may_expire: mayExpire, writers, created_at: createdAt } = row
  const { protected: isProtected, created_by: createdBy } = row
  return { name, pattern, tags, immutable, protected: isProtected, mayExpire, writers, createdAt, createdBy }
}

/** Removes a rule. To who does not administer its pattern it is not there. @throws RegistryError DENIED, NOT_FOUND. */
export async function removeTagRule({ db }: AdministrationContext, actor: Actor, name: string): Promise<void> {
  const isWithin = await administeredBy(db, actor)
  const rule = await rows.findTagRule(db, name)
  const { id } = found(rule !== undefined && isWithin([rule.pattern]) ? rule : undefined, `tag rule ${name}`)
  await db.transaction(async tx => {
    await rows.lockTagRules(tx)
    found((await rows.deleteTagRule(tx, id)) || undefined, `tag rule ${name}`)
    await record(tx, actor, 'tag-rule.remove', { rule: name })
  })
}
