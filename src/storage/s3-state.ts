import type { StorageKey, WriteState } from './blob-store.ts'

/** One object that holds a piece of unfinished content. */
export interface Hold {
  readonly key: StorageKey
  readonly bytes: number
}

/**
 * Where the durable bytes of unfinished content are. Either all of them lie under the key already (`wholeBytes`), or:
 * parts of equal size in a multipart upload to the key, then what does not fill a part, in objects of their own.
 */
export interface Draft {
  readonly key: StorageKey
  /** Bytes of every part but the last; 0 until the first byte fixes it. */
  readonly partBytes: number
  readonly wholeBytes?: number | undefined
  readonly uploadId?: string | undefined
  /** ETags of the parts, the first part's first. Our own list: a store's may lag behind. */
  readonly parts: readonly string[]
  readonly holds: readonly Hold[]
  /** The same bytes as the holds (or bytes without any, when nothing can follow) as the last part, for finishing. */
  readonly last?: { readonly etag: string; readonly bytes: number } | undefined
}

interface Note extends Omit<Draft, 'key' | 'holds'> {
  /** Sizes of `WriteState.holds`, in their order. */
  readonly holdBytes: readonly number[]
}

const EMPTY: Note = { partBytes: 0, parts: [], holdBytes: [] }

/** What a state says. */
export function draftOf(state: WriteState): Draft {
  const { holdBytes, ...note } = (state.note ?? EMPTY) as Note
  const holds = (state.holds ?? []).map((key, index) => ({ key, bytes: holdBytes[index] ?? 0 }))
  return { ...note, key: state.key, holds }
}

/** The state that says it. */
export function stateOf(draft: Draft): WriteState {
  const { key, holds, wholeBytes, uploadId, last, partBytes, parts } = draft
  const note: Note = {
    partBytes,
    parts,
    holdBytes: holds.map(hold => hold.bytes),
    ...(wholeBytes === undefined ? {} : { wholeBytes }),
    ...(uploadId === undefined ? {} : { uploadId }),
    ...(last === undefined ? {} : { last }),
  }
  return { key, offset: offsetOf(draft), holds: holds.map(hold => hold.key), note }
}

/** Bytes after the last whole part that objects of their own hold. */
export function heldBytes(draft: Draft): number {
  return draft.holds.reduce((sum, hold) => sum + hold.bytes, 0)
}

/** Durable bytes. */
export function offsetOf(draft: Draft): number {
  if (draft.wholeBytes !== undefined) return draft.wholeBytes
  return draft.parts.length * draft.partBytes + Math.max(heldBytes(draft), draft.last?.bytes ?? 0)
}
