import type { VisibleNames } from '../auth/authority.ts'
import type { Action, Identity, PatternActions } from '../auth/identity.ts'
import { type Decision, type Grant, decide, implies } from '../auth/policy.ts'
import type { Queryable } from '../metadata/database.ts'
import * as rows from '../metadata/grants.ts'
import { patternRegex } from '../oci/repository-pattern.ts'

/** Every grant that applies to an identity. */
export async function grantsFor(db: Queryable, identity: Identity): Promise<readonly Grant[]> {
  return (await rows.grantsOf(db, identity.principalId)).map(presentGrant)
}

/** A grant as the policy reads it. */
export function presentGrant(row: rows.GrantRow): Grant {
  return {
    id: row.id,
    subject: row.subject,
    ...(row.subject_name === null ? {} : { subjectName: row.subject_name }),
    pattern: row.pattern,
    actions: row.actions,
  }
}

/** Whether an identity may do an action on a repository, and which grant decided. */
export async function explain(db: Queryable, identity: Identity, action: Action, name: string): Promise<Decision> {
  return decide(identity, await grantsFor(db, identity), action, name)
}

/** The names that an identity may pull. */
export async function visibleTo(db: Queryable, identity: Identity): Promise<VisibleNames> {
  if (identity.kind === 'local') return []
  const regexes = (entries: readonly PatternActions[]): string[] =>
    entries.filter(entry => implies(entry.actions, 'pull')).map(entry => patternRegex(entry.pattern))
  const granted = regexes(await grantsFor(db, identity))
  return identity.scopes === undefined ? [granted] : [granted, regexes(identity.scopes)]
}
