import assert from 'node:assert/strict'
import { foldAllUsage } from '../../src/gc/usage.ts'
import type { Database } from '../../src/metadata/database.ts'
import { quotaStates } from '../../src/metadata/quota-slots.ts'
import { countQuotas, putQuota } from '../../src/metadata/quotas.ts'
import { patternRegex } from '../../src/oci/repository-pattern.ts'

/** What a repository uses, by whatever it was counted. */
interface Counted {
  readonly name: string
  readonly blobs: number
  readonly blob_bytes: number
  readonly manifests: number
  readonly manifest_bytes: number
  readonly tags: number
}

/** Sets a quota and counts what is there. */
export async function setQuota(
  db: Database,
  pattern: string,
  limit: number,
  measure: 'logical' | 'physical' = 'logical',
): Promise<void> {
  const quota = { pattern, measure, limit_bytes: limit, regex: patternRegex(pattern), created_by: null }
  await db.transaction(tx => putQuota(tx, quota))
  await countQuotas(db)
}

/** How full a quota is, in bytes. */
export async function usedOf(db: Database, pattern: string, measure = 'logical'): Promise<number> {
  const [row] = await db.query<{ id: number }>('select id from quota where pattern = $1 and measure = $2', [
    pattern,
    measure,
  ])
  assert.ok(row !== undefined, `there is no quota ${pattern}`)
  const [state] = await quotaStates(db, [row.id])
  assert.ok(state !== undefined)
  return state.used
}

/** Folds every change, then asserts that counters, quotas and stores say what the rows say. */
export async function assertUsageIsTrue(db: Database): Promise<void> {
  await foldAllUsage(db)
  assert.deepEqual(await db.query('select * from usage_delta'), [])
  const counted = await db.query<Counted>(
    `select r.name, u.blobs, u.blob_bytes, u.manifests, u.manifest_bytes, u.tags
       from repository_usage u join repository r on r.id = u.repository_id order by r.id`,
  )
  const truth = await db.query<Counted>(
    `select r.name, (select count(*) from repository_blob l where l.repository_id = r.id and l.counted) as blobs,
            (select coalesce(sum(b.size), 0)::bigint from repository_blob l join blob b on b.id = l.blob_id
              where l.repository_id = r.id and l.counted) as blob_bytes,
            (select count(*) from manifest m where m.repository_id = r.id and m.deleted_at is null) as manifests,
            (select coalesce(sum(length(payload)), 0)::bigint from manifest m
              where m.repository_id = r.id and m.deleted_at is null) as manifest_bytes,
            (select count(*) from tag t where t.repository_id = r.id) as tags
       from repository r order by r.id`,
  )
  assert.deepEqual(counted, truth)
  assert.deepEqual(await namedButUncounted(db), [], 'links that a visible manifest names count')
  const stores = await db.query('select store, blobs, bytes from store_usage where blobs > 0')
  assert.deepEqual(
    stores,
    await db.query('select store, count(*) as blobs, sum(size)::bigint as bytes from blob group by store'),
  )
  for (const { id, pattern, measure, truth: bytes } of await quotaTruth(db)) {
    const [state] = await quotaStates(db, [id])
    assert.equal(state?.used, bytes, `${measure} bytes of ${pattern}`)
  }
}

async function namedButUncounted(db: Database): Promise<readonly object[]> {
  return await db.query(
    `select l.digest from repository_blob l where not l.counted
        and exists (select from manifest_blob e join manifest m on m.id = e.manifest_id
                     where e.repository_id = l.repository_id and e.digest = l.digest and m.deleted_at is null)`,
  )
}

/** Links that count though every manifest that they were there for was deleted (one made since is bound to none). */
export async function countedButDeleted(db: Database): Promise<readonly object[]> {
  return await db.query(
    `select l.digest from repository_blob l where l.counted
        and exists (select from manifest_blob e where e.repository_id = l.repository_id and e.blob_id = l.blob_id)
        and not exists (select from manifest_blob e join manifest m on m.id = e.manifest_id
                         where e.repository_id = l.repository_id and e.digest = l.digest and m.deleted_at is null)`,
  )
}

async function quotaTruth(
  db: Database,
): Promise<
  readonly { readonly id: number; readonly pattern: string; readonly measure: string; readonly truth: number }[]
> {
  return await db.query(
    `select q.id, q.pattern, q.measure,
            ((select coalesce(sum(case when q.measure = 'logical' then b.size else 0 end), 0)
                from repository_blob l join blob b on b.id = l.blob_id join repository r on r.id = l.repository_id
               where l.counted and r.deleted_at is null and r.name ~ q.regex)
             + (select coalesce(sum(b.size), 0) from blob b
                 where q.measure = 'physical'
                   and exists (select from repository_blob l join repository r on r.id = l.repository_id
                                where l.blob_id = b.id and l.counted and r.deleted_at is null and r.name ~ q.regex))
             + (select coalesce(sum(m.size), 0) from manifest m join repository r on r.id = m.repository_id
                 where m.deleted_at is null and r.deleted_at is null and r.name ~ q.regex))::bigint as truth
       from quota q order by q.id`,
  )
}
