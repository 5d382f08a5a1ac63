import type { Queryable, Transaction } from './database.ts'

/** Actions on a pattern of repositories, given to a principal, a group, everyone who logged in, or everyone. */
export interface GrantRow {
  readonly id: number
  readonly subject: 'principal' | 'group' | 'authenticated' | 'anonymous'
  /** The principal's or group's name. */
  readonly subject_name: string | null
  readonly pattern: string
  readonly actions: readonly ('pull' | 'push' | 'delete' | 'admin')[]
  readonly created_at: Date
  readonly created_by: string | null
}

const SELECT = `select g.id, g.subject, coalesce(p.name, q.name) as subject_name, g.pattern, g.actions, g.created_at,
       g.created_by
  from access_grant g
  left join principal p on p.id = g.principal_id
  left join principal_group q on q.id = g.group_id`

/**
 * Everything that was granted to a principal: to itself, its groups, everyone who logged in, and everyone. Without a
 * principal: what was granted to everyone.
 */
export async function grantsOf(db: Queryable, principalId: number | undefined): Promise<readonly GrantRow[]> {
  return await db.query<GrantRow>(
    `${SELECT}
      where g.subject = 'anonymous'
         or ($1::bigint is not null
             and (g.subject = 'authenticated' or g.principal_id = $1
                  or g.group_id in (select m.group_id from group_member m where m.principal_id = $1)))
      order by g.id`,
    [principalId ?? null],
  )
}

/** Everything that whoever logged in may by a group, or without one: what was granted to it, to everyone who logged in, and to everyone. */
export async function grantsOfGroup(db: Queryable, groupId: number | undefined): Promise<readonly GrantRow[]> {
  return await db.query<GrantRow>(
    `${SELECT} where g.subject in ('anonymous', 'authenticated') or g.group_id = $1 order by g.id`,
    [groupId ?? null],
  )
}

/** Grants after `lastId`, in the order they were made; only those of one principal or group where one is named. */
export async function listGrants(
  db: Queryable,
  of: { readonly principalId?: number; readonly groupId?: number },
  lastId: number,
  limit: number,
): Promise<readonly GrantRow[]> {
  return await db.query<GrantRow>(
    `${SELECT}
      where g.id > $1 and ($2::bigint is null or g.principal_id = $2) and ($3::bigint is null or g.group_id = $3)
      order by g.id limit $4`,
    [lastId, of.principalId ?? null, of.groupId ?? null, limit],
  )
}

/** The patterns granted to each of these principals, to itself or to a group of it. Those without any are left out. */
export async function grantedPatterns(
  db: Queryable,
  principalIds: readonly number[],
): Promise<ReadonlyMap<number, readonly string[]>> {
  const rows = await db.query<{ id: number; patterns: readonly string[] }>(
    `select p.id, array_agg(g.pattern) as patterns
       from unnest($1::bigint[]) as p (id)
       join access_grant g
         on g.principal_id = p.id
            or g.group_id in (select m.group_id from group_member m where m.principal_id = p.id)
      group by p.id`,
    [principalIds],
  )
  return new Map(rows.map(({ id, patterns }) => [id, patterns]))
}

/** What {@link putGrant} writes. */
export interface NewGrant {
  readonly subject: GrantRow['subject']
  readonly principalId?: number
  readonly groupId?: number
  readonly pattern: string
  readonly actions: readonly string[]
  readonly createdBy: string
}

/** Grants; a grant of the same subject and pattern gets these actions instead of its own. Answers the id. */
export async function putGrant(tx: Transaction, grant: NewGrant): Promise<number> {
  const rows = await tx.query<{ id: number }>(
    `insert into access_grant (subject, principal_id, group_id, pattern, actions, created_by)
     values ($1, $2, $3, $4, $5, $6)
     on conflict (subject, coalesce(principal_id, 0), coalesce(group_id, 0), pattern)
     do update set actions = excluded.actions, created_by = excluded.created_by, created_at = now()
     returning id`,
    [grant.subject, grant.principalId ?? null, grant.groupId ?? null, grant.pattern, grant.actions, grant.createdBy],
  )
  const [row] = rows
  if (row === undefined) throw new Error('the grant was neither inserted nor updated')
  return row.id
}

/** The grant of that id. */
export async function findGrant(db: Queryable, id: number): Promise<GrantRow | undefined> {
  return (await db.query<GrantRow>(`${SELECT} where g.id = $1`, [id]))[0]
}

/** Takes a grant back. False when there is none. */
export async function deleteGrant(tx: Transaction, id: number): Promise<boolean> {
  return (await tx.query('delete from access_grant where id = $1 returning id', [id])).length === 1
}
