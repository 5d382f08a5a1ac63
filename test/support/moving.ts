import assert from 'node:assert/strict'
import type { Database } from '../../src/metadata/database.ts'
import { type CopyOutcome, type StorageCopyRow, findCopy, requestCopy } from '../../src/metadata/storage-copy.ts'
import { findUnnamedKeys } from '../../src/metadata/storage-keys.ts'
import { type StorageCopyOptions, workOnCopy } from '../../src/moving/storage-copy.ts'
import type { BlobStore } from '../../src/storage/blob-store.ts'

const HOUR_MS = 3_600_000
const never = new AbortController().signal

/** Asks for a move to a store. */
export async function askForMove(db: Database, target: string, atOnce = 3): Promise<void> {
  const ask = { target, atOnce, bytesPerSecond: undefined, requestedBy: 'test' }
  assert.equal(await db.transaction(tx => requestCopy(tx, ask)), true)
}

/** Works on the move that was asked for. */
export async function workOnMove(
  options: Pick<StorageCopyOptions, 'db' | 'stores'> & Partial<StorageCopyOptions>,
  signal = never,
): Promise<CopyOutcome | undefined> {
  return await workOnCopy(
    {
      graceMs: HOUR_MS,
      draftMs: HOUR_MS,
      mayUse: async () => true,
      onFailure: () => {},
      ...options,
    },
    signal,
  )
}

/** The move as it stands. */
export async function moveOf(db: Database): Promise<StorageCopyRow> {
  const row = await findCopy(db)
  assert.ok(row !== undefined, 'no move was ever asked for')
  return row
}

/** How many things lie in a store, and how many of them no row names. */
export async function strays(db: Database, store: BlobStore): Promise<{ found: number; unnamed: number }> {
  const kept: string[] = []
  const unfinished: string[] = []
  for await (const item of store.list()) (item.unfinished === undefined ? kept : unfinished).push(item.key)
  const unnamed = await findUnnamedKeys(db, store.name, kept, 'stored')
  const forgotten = await findUnnamedKeys(db, store.name, unfinished, 'unfinished')
  return { found: kept.length + unfinished.length, unnamed: unnamed.size + forgotten.size }
}
