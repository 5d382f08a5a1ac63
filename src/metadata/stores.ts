import type { Queryable } from './database.ts'

/**
 * Names of the stores that rows name. Goes from name to name in the indexes, so that it costs the same however many
 * blobs there are.
 */
export async function findStoreNames(db: Queryable): Promise<readonly string[]> {
  const rows = await db.query<{ store: string }>(
    `with recursive blobs as (
       (select store from blob order by store limit 1)
       union all
       select (select b.store from blob b where b.store > s.store order by b.store limit 1)
         from blobs s where s.store is not null),
     forgotten as (
       (select store from trash order by store limit 1)
       union all
       select (select t.store from trash t where t.store > s.store order by t.store limit 1)
         from forgotten s where s.store is not null)
     select store from blobs where store is not null
     union select store from forgotten where store is not null
     union select store from upload
     order by store`,
  )
  return rows.map(row => row.store)
}

/** What rows say about one store. Blobs with their bytes; uploads under way; keys that wait in the trash. */
export interface StoreUsage {
  readonly store: string
  readonly blobs: number
  readonly bytes: number
  readonly uploads: number
  readonly trash: number
}

/** Usage of every store that rows name. Visits all blobs: for people who ask, never for a request of a client. */
export async function measureStores(db: Queryable): Promise<readonly StoreUsage[]> {
  return await db.query<StoreUsage>(
    `select store, sum(blobs)::bigint as blobs, sum(bytes)::bigint as bytes, sum(uploads)::bigint as uploads,
            sum(trash)::bigint as trash
       from (select store, count(*) as blobs, coalesce(sum(size), 0) as bytes, 0 as uploads, 0 as trash
               from blob group by store
             union all select store, 0, 0, count(*), 0 from upload group by store
             union all select store, 0, 0, 0, count(*) from trash group by store) each
      group by store order by store`,
  )
}
