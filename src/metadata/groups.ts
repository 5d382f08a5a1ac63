import type { Queryable, Transaction } from './database.ts'

/** A group of principals. */
export interface GroupRow {
  readonly id: number
  readonly name: string
  readonly external_id: string | null
  readonly created_at: Date
}

/** The group of that name. */
export async function findGroup(db: Queryable, name: string): Promise<GroupRow | undefined> {
  const rows = await db.query<GroupRow>(
    'select id, name, external_id, created_at from principal_group where name = $1',
    [name],
  )
  return rows[0]
}

/** Groups by name, after `last`. */
export async function listGroups(db: Queryable, last: string, limit: number): Promise<readonly GroupRow[]> {
  return await db.query<GroupRow>(
    'select id, name, external_id, created_at from principal_group where name > $1 order by name limit $2',
    [last, limit],
  )
}

/** Adds a group; answers its id, or undefined where the name is taken. */
export async function insertGroup(
  tx: Transaction,
  group: { readonly name: string; readonly externalId?: string },
): Promise<number | undefined> {
  const rows = await tx.query<{ id: number }>(
    'insert into principal_group (name, external_id) values ($1, $2) on conflict do nothing returning id',
    [group.name, group.externalId ?? null],
  )
  return rows[0]?.id
}

/** Removes a group with its grants and memberships. False when there is none. */
export async function deleteGroup(tx: Transaction, id: number): Promise<boolean> {
  return (await tx.query('delete from principal_group where id = $1 returning id', [id])).length === 1
}

/** Puts a principal into a group; being in it already is success. */
export async function addMember(tx: Transaction, groupId: number, principalId: number): Promise<void> {
  await tx.query('insert into group_member (group_id, principal_id) values ($1, $2) on conflict do nothing', [
    groupId,
    principalId,
  ])
}

/** Takes a principal out of a group. False when it was not in it. */
export async function removeMember(tx: Transaction, groupId: number, principalId: number): Promise<boolean> {
  const rows = await tx.query('delete from group_member where group_id = $1 and principal_id = $2 returning group_id', [
    groupId,
    principalId,
  ])
  return rows.length === 1
}

/** Names of a group's members, after `last`. */
export async function listMembers(
  db: Queryable,
  groupId: number,
  last: string,
  limit: number,
): Promise<readonly { readonly name: string; readonly kind: string }[]> {
  return await db.query<{ name: string; kind: string }>(
    `select p.name, p.kind from group_member m join principal p on p.id = m.principal_id
      where m.group_id = $1 and p.name > $2 order by p.name limit $3`,
    [groupId, last, limit],
  )
}
