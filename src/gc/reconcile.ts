import { findUnnamedKeys } from '../metadata/storage-keys.ts'
import type { Database } from '../metadata/database.ts'
import type { BlobStore, StoredItem } from '../storage/blob-store.ts'

const BATCH = 500

/**
 * Removes what lies in the store, is older than `olderThanMs` and is named by no row: what a process left that died
 * between the store and the index, or a request that arrived after its content had ended. `olderThanMs` must exceed
 * the life of any upload, and anything an index that is restored from a backup may still want. Lists the whole store:
 * rarely, and never for a request. Answers how many things went. Ends early, by an error, when `signal` fires; `mayDelete`
 * is asked before every batch, and ends it where the store is not ours (any more).
 */
export async function reconcile(
  db: Database,
  store: BlobStore,
  olderThanMs: number,
  signal?: AbortSignal,
  mayDelete: () => Promise<boolean> = () => Promise.resolve(true),
): Promise<number> {
  const before = Date.now() - olderThanMs
  let removed = 0
  let batch: StoredItem[] = []
  for await (const item of store.list()) {
    signal?.throwIfAborted()
    if (item.modified.getTime() >= before) continue
    batch.push(item)
    if (batch.length < BATCH) continue
    if (!(await mayDelete())) return removed
    removed += await removeUnnamed(db, store, batch)
    batch = []
  }
  return (await mayDelete()) ? removed + (await removeUnnamed(db, store, batch)) : removed
}

async function removeUnnamed(db: Database, store: BlobStore, items: readonly StoredItem[]): Promise<number> {
  const stored = items.filter(item => item.unfinished === undefined).map(item => item.key)
  const unfinished = items.flatMap(item => item.unfinished ?? [])
  const unnamed = await findUnnamedKeys(db, store.name, stored, 'stored')
  const forgotten = await findUnnamedKeys(
    db,
    store.name,
    unfinished.map(state => state.key),
    'unfinished',
  )
  const keys = stored.filter(key => unnamed.has(key))
  await store.delete(keys)
  const states = unfinished.filter(state => forgotten.has(state.key))
  for (const state of states) await store.abort(state)
  return keys.length + states.length
}
