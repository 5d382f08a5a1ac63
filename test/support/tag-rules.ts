import assert from 'node:assert/strict'
import type { Database } from '../../src/metadata/database.ts'
import { insertPrincipal } from '../../src/metadata/principals.ts'
import { type NewTagRule, insertTagRule, lockTagRules } from '../../src/metadata/tag-rules.ts'

const RULE: NewTagRule = {
  name: undefined,
  pattern: '**',
  tags: '*',
  immutable: false,
  protected: false,
  mayExpire: false,
  principalIds: [],
  groupIds: [],
  createdBy: 'test',
}

/** Adds a tag rule as the administration does; answers its name. */
export async function addTagRule(db: Database, rule: Partial<NewTagRule>): Promise<string> {
  return await db.transaction(async tx => {
    await lockTagRules(tx)
    const name = await insertTagRule(tx, { ...RULE, ...rule })
    assert.ok(name !== undefined)
    return name
  })
}

/** Removes every tag rule. */
export async function clearTagRules(db: Database): Promise<void> {
  await db.transaction(async tx => {
    await lockTagRules(tx)
    await tx.query('delete from tag_rule')
  })
}

/** Adds a user; answers its id. */
export async function addPrincipal(db: Database, name: string): Promise<number> {
  const id = await db.transaction(tx => insertPrincipal(tx, { kind: 'user', name, createdBy: 'test' }))
  assert.ok(id !== undefined)
  return id
}
