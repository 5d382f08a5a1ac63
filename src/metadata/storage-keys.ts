import type { Queryable } from './database.ts'

/**
 * Those of `keys` that no row names: no blob, nothing in the trash, no upload. One statement, so that a key which moves
 * from one table to another meanwhile is seen in one of them. Content that was never finished (`unfinished`) is not
 * kept by a blob under the same key.
 */
export async function findUnnamedKeys(
  db: Queryable,
  store: string,
  keys: readonly string[],
  kind: 'stored' | 'unfinished',
): Promise<ReadonlySet<string>> {
  const rows = await db.query<{ key: string }>(
    `with writing as (
       select store_state as state from upload where store = $1
       union all
       select state from trash where store = $1 and state is not null),
     needed as (
       select state ->> 'key' as key from writing
       union
       select jsonb_array_elements_text(coalesce(state -> 'holds', '[]'::jsonb)) from writing
       union
       select storage_key from trash where store = $1)
     select k.key from unnest($2::text[]) as k (key)
      where not exists (select from needed n where n.key = k.key)
        and ($3 or not exists (select from blob b where b.store = $1 and b.storage_key = k.key))`,
    [store, keys, kind === 'unfinished'],
  )
  return new Set(rows.map(row => row.key))
}
