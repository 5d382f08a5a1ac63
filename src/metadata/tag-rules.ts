import type { Queryable, Transaction } from './database.ts'

/** Which tags of which repositories must not change, or only by some. */
export interface TagRuleRow {
  readonly id: number
  readonly name: string
  /** Of repositories. */
  readonly pattern: string
  readonly tags: string
  readonly immutable: boolean
  readonly protected: boolean
  readonly may_expire: boolean
  readonly created_at: Date
  readonly created_by: string | null
}

/** A rule with who may write the tags that it protects: principals by name, groups as `group:NAME`. */
export interface TagRuleWithWriters extends TagRuleRow {
  readonly writers: readonly string[]
}

/** A rule as it concerns one writer of tags. */
export interface AppliedTagRule extends TagRuleRow {
  readonly is_writer: boolean
}

const COLUMNS = 'r.id, r.name, r.pattern, r.tags, r.immutable, r.protected, r.may_expire, r.created_at, r.created_by'
const LOCK = `hashtextextended('tag rules', 0)`

/**
 * Every rule, and whether `principalId` is one of its writers. From here to the end of the transaction no rule changes:
 * a tag written under the rules as they were is visible to whoever changes them. Taken before the locks of tags.
 */
export async function holdTagRules(
  tx: Transaction,
  principalId: number | undefined,
): Promise<readonly AppliedTagRule[]> {
  await tx.query(`select pg_advisory_xact_lock_shared(${LOCK})`)
  return await tx.query<AppliedTagRule>(
    `select ${COLUMNS},
            exists (select from tag_rule_writer w
                     where w.rule_id = r.id
                       and (w.principal_id = $1::bigint
                            or w.group_id in (select m.group_id from group_member m where m.principal_id = $1))) as is_writer
       from tag_rule r order by r.id`,
    [principalId ?? null],
  )
}

/** Patterns of the tags that rules make immutable now. */
export async function findImmutableRules(db: Queryable): Promise<readonly Pick<TagRuleRow, 'pattern' | 'tags'>[]> {
  return await db.query('select pattern, tags from tag_rule where immutable')
}

/** Waits for every transaction that writes tags, and holds off the others until this one ends. */
export async function lockTagRules(tx: Transaction): Promise<void> {
  await tx.query(`select pg_advisory_xact_lock(${LOCK})`)
}

/** What {@link insertTagRule} writes. */
export interface NewTagRule {
  /** Without one it is named by its number. */
  readonly name: string | undefined
  readonly pattern: string
  readonly tags: string
  readonly immutable: boolean
  readonly protected: boolean
  readonly mayExpire: boolean
  readonly principalIds: readonly number[]
  readonly groupIds: readonly number[]
  readonly createdBy: string
}

/** Adds a rule; answers its name, or undefined where that is taken. */
export async function insertTagRule(tx: Transaction, rule: NewTagRule): Promise<string | undefined> {
  const rows = await tx.query<{ id: number; name: string }>(
    `with made as (select nextval(pg_get_serial_sequence('tag_rule', 'id')) as id)
     insert into tag_rule (id, name, pattern, tags, immutable, protected, may_expire, created_by) overriding system value
     select id, coalesce($1, 'rule-' || id), $2, $3, $4, $5, $6, $7 from made
     on conflict (name) do nothing returning id, name`,
    [rule.name ?? null, rule.pattern, rule.tags, rule.immutable, rule.protected, rule.mayExpire, rule.createdBy],
  )
  const [made] = rows
  if (made === undefined) return undefined
  await tx.query(
    `insert into tag_rule_writer (rule_id, principal_id, group_id)
     select $1::bigint, p, null::bigint from unnest($2::bigint[]) p
     union all select $1::bigint, null, g from unnest($3::bigint[]) g
     on conflict do nothing`,
    [made.id, rule.principalIds, rule.groupIds],
  )
  return made.name
}

/** How many rules there are. */
export async function countTagRules(db: Queryable): Promise<number> {
  return (await db.query<{ count: number }>('select count(*)::int as count from tag_rule'))[0]?.count ?? 0
}

const WITH_WRITERS = `select ${COLUMNS},
       array(select coalesce(p.name, 'group:' || g.name) from tag_rule_writer w
               left join principal p on p.id = w.principal_id
               left join principal_group g on g.id = w.group_id
              where w.rule_id = r.id order by 1) as writers
  from tag_rule r`

/** Rules by name, after `last`. */
export async function listTagRules(db: Queryable, last: string, limit: number): Promise<readonly TagRuleWithWriters[]> {
  return await db.query<TagRuleWithWriters>(`${WITH_WRITERS} where r.name > $1 order by r.name limit $2`, [last, limit])
}

/** The rule of that name. */
export async function findTagRule(db: Queryable, name: string): Promise<TagRuleWithWriters | undefined> {
  return (await db.query<TagRuleWithWriters>(`${WITH_WRITERS} where r.name = $1`, [name]))[0]
}

/** Removes a rule. False when there is none of that id. */
export async function deleteTagRule(tx: Transaction, id: number): Promise<boolean> {
  return (await tx.query('delete from tag_rule where id = $1 returning id', [id])).length === 1
}
