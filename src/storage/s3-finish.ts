import { BlobMissing, StoreUnavailable, type StorageKey, WriteLost } from './blob-store.ts'
import type { S3Bucket } from './s3-bucket.ts'
import type { UploadMemory } from './s3-memory.ts'
import { readObject } from './s3-reader.ts'
import { type Draft, type Hold, heldBytes, offsetOf } from './s3-state.ts'

const never = new AbortController().signal

/** Reads what objects hold, in order, to the start of `into`. @throws WriteLost, StoreUnavailable */
export async function readHolds(bucket: S3Bucket, holds: readonly Hold[], into: Buffer): Promise<void> {
  let at = 0
  for (const hold of holds) {
    const range = { start: 0, end: hold.bytes - 1 }
    try {
      for await (const chunk of readObject(bucket, hold.key, range, never)) {
        into.set(chunk, at)
        at += chunk.byteLength
      }
    } catch (error) {
      throw error instanceof BlobMissing ? new WriteLost('Bytes that were put are gone', { cause: error }) : error
    }
  }
}

/** Removes objects that nothing needs any more. One that stays is named by no row: the reconcile finds it. */
export async function dropHolds(bucket: S3Bucket, keys: readonly StorageKey[]): Promise<void> {
  await Promise.allSettled(keys.map(key => bucket.remove(key)))
}

/**
 * Makes the content the object under its key. Reads nothing, unless the content came in several appends that did not
 * fill a part: then less than one part.
 * @throws WriteLost, StoreUnavailable
 */
export async function finishDraft(bucket: S3Bucket, memory: UploadMemory, draft: Draft): Promise<StorageKey> {
  if (draft.wholeBytes !== undefined) return draft.key
  const joined = await isJoined(bucket, memory, draft).catch((error: unknown) => {
    // A repeat of what succeeded unnoticed fails in many ways: Ceph 16 calls it an internal error.
    if (error instanceof StoreUnavailable) return error
    throw error
  })
  if (joined !== true && !(await hasSize(bucket, draft))) {
    throw joined === false ? new WriteLost('Neither the multipart upload nor its object is there') : joined
  }
  await dropHolds(
    bucket,
    draft.holds.map(hold => hold.key),
  )
  return draft.key
}

/** False when something that unfinished content needs is gone, perhaps because it was finished before. */
async function isJoined(bucket: S3Bucket, memory: UploadMemory, draft: Draft): Promise<boolean> {
  const { key, uploadId, parts, holds } = draft
  let last = draft.last?.etag
  if (last === undefined && holds.length > 0) {
    const bytes = await memory.acquire(heldBytes(draft), never)
    if (bytes === undefined) throw new StoreUnavailable('There was no memory to finish with')
    try {
      await readHolds(bucket, holds, bytes)
      if (uploadId === undefined) await bucket.put(key, bytes)
      else last = await bucket.putPart(key, uploadId, parts.length + 1, bytes)
    } catch (error) {
      if (error instanceof WriteLost) return false
      throw error
    } finally {
      memory.release(bytes)
    }
  }
  if (uploadId !== undefined) {
    return await bucket.completeUpload(key, uploadId, last === undefined ? parts : [...parts, last])
  }
  if (offsetOf(draft) === 0) await bucket.put(key, new Uint8Array(0))
  return true
}

async function hasSize(bucket: S3Bucket, draft: Draft): Promise<boolean> {
  return (await bucket.head(draft.key))?.size === offsetOf(draft)
}
