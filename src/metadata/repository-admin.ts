import type { RepositoryName } from '../oci/name.ts'
import type { Queryable, Transaction } from './database.ts'
import { visibleCondition } from './repositories.ts'

/** A repository as administrators see it. */
export interface RepositoryInfoRow {
  readonly id: number
  readonly name: string
  readonly created_at: Date
  readonly deleted_at: Date | null
  readonly deleted_by: string | null
}

const COLUMNS = 'id, name, created_at, deleted_at, deleted_by'

/** Living repositories that are visible, by name after `last`. */
export async function pageOfRepositories(
  db: Queryable,
  visible: readonly (readonly string[])[],
  last: string,
  limit: number,
): Promise<readonly RepositoryInfoRow[]> {
  const values: unknown[] = [last, limit]
  return await db.query<RepositoryInfoRow>(
    `select ${COLUMNS} from repository
      where deleted_at is null and name > $1 and ${visibleCondition('name', visible, values)}
      order by name limit $2`,
    values,
  )
}

/** Deleted repositories that are visible and can come back, by id after `lastId`. */
export async function pageOfDeletedRepositories(
  db: Queryable,
  visible: readonly (readonly string[])[],
  lastId: number,
  limit: number,
): Promise<readonly RepositoryInfoRow[]> {
  const values: unknown[] = [lastId, limit]
  return await db.query<RepositoryInfoRow>(
    `select ${COLUMNS} from repository
      where deleted_at is not null and draining_at is null and id > $1 and ${visibleCondition('name', visible, values)}
      order by id limit $2`,
    values,
  )
}

/** A living repository with the number of its tags and visible manifests, each counted up to `most`. */
export async function describeRepository(
  db: Queryable,
  name: RepositoryName,
  most: number,
): Promise<(RepositoryInfoRow & { readonly tags: number; readonly manifests: number }) | undefined> {
  const rows = await db.query<RepositoryInfoRow & { tags: number; manifests: number }>(
    `select ${COLUMNS},
            (select count(*)::int from (select from tag t where t.repository_id = r.id limit $2) c) as tags,
            (select count(*)::int from (select from manifest m
                                         where m.repository_id = r.id and m.deleted_at is null limit $2) c) as manifests
       from repository r where name = $1 and deleted_at is null`,
    [name, most],
  )
  return rows[0]
}

/** Locks the living repository of that name against whoever holds it: pushes, other deletions. */
export async function lockRepository(tx: Transaction, name: RepositoryName): Promise<number | undefined> {
  const rows = await tx.query<{ id: number }>(
    'select id from repository where name = $1 and deleted_at is null for update',
    [name],
  )
  return rows[0]?.id
}

/** Frees the name of a locked repository; everything in it stays as it is. */
export async function hideRepository(tx: Transaction, id: number, principal: string | undefined): Promise<void> {
  await tx.query('update repository set deleted_at = clock_timestamp(), deleted_by = $2 where id = $1', [
    id,
    principal ?? null,
  ])
}
