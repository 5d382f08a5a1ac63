import type { Readable, Writable } from 'node:stream'
import type { Digest } from '../oci/digest.ts'

declare const keyBrand: unique symbol
/** Where a store keeps one blob. Opaque to everyone else, 128 random bits in it, never used twice. */
export type StorageKey = string & { readonly [keyBrand]: true }

/** Content being written. Plain JSON, persisted unread by the rules between requests and processes. */
export interface WriteState {
  /** What `finish` makes the blob's key. An append may change it; the change is told before a request uses the new one. */
  readonly key: StorageKey
  /** Bytes that are durable, from the start of the content. */
  readonly offset: number
  /** Further keys that hold some of these bytes until the content is finished or forgotten. */
  readonly holds?: readonly StorageKey[]
  /** The store's own note. */
  readonly note?: unknown
}

/** Bytes `start` to `end`, both inclusive, as in RFC 9110 section 14. */
export interface ByteRange {
  readonly start: number
  readonly end: number
}

/** Takes every byte that was written, in order, before it is written. */
export type Observer = (bytes: Uint8Array) => void

/** The key names nothing. */
export class BlobMissing extends Error {
  override readonly name = 'BlobMissing'
}

/** The store cannot do its work now (disk full, input/output error); a later try may succeed. */
export class StoreUnavailable extends Error {
  override readonly name = 'StoreUnavailable'
}

/** The sender stopped before the end of what it announced. What was durable stays durable. */
export class BodyAborted extends Error {
  override readonly name = 'BodyAborted'
}

/** Unfinished content that was durable is gone from the store: it has to be sent again from its start. */
export class WriteLost extends Error {
  override readonly name = 'WriteLost'
}

/** The content is larger than the store can keep. */
export class ContentTooLarge extends Error {
  override readonly name = 'ContentTooLarge'
  /** The most bytes this content may have. */
  readonly limitBytes: number

  constructor(limitBytes: number) {
    super(`The store keeps no more than ${limitBytes} bytes of this content`)
    this.limitBytes = limitBytes
  }
}

/** What an append is given besides its bytes. */
export interface AppendOptions {
  readonly observe: Observer
  readonly onDurable: (state: WriteState) => Promise<void>
  readonly signal: AbortSignal
  /** Bytes `body` announces, where it does. */
  readonly length?: number | undefined
  /** Whether the content ends with `body`: what is stored then need not be continued. */
  readonly last?: boolean
  /**
   * Counts those who write to this content, from 1: above 1, a request of an earlier writer may still arrive at the
   * store. Only 1 may use a key that was never told.
   */
  readonly attempt?: number
}

/** One thing in a store, as `list` finds it. */
export interface StoredItem {
  readonly key: StorageKey
  readonly modified: Date
  /** Set for what is no blob under its key yet: what `abort` takes to remove it. Everything else `delete` removes. */
  readonly unfinished?: WriteState
}

/** Bytes under opaque keys. Every store keeps `test/storage/contract.ts`. */
export interface BlobStore {
  /** The store's name as rows record it. */
  readonly name: string
  /** A new key and an empty state; no input or output. */
  begin(hint: { readonly digest?: Digest; readonly length?: number }): WriteState
  /**
   * Adds all of `body` after `state.offset`, telling `onDurable` as the durable offset moves (at the latest every
   * 64 MiB, or with each part where parts are larger, and once at the end). Bytes beyond `state.offset` left by an earlier attempt are replaced.
   * `observe` sees each byte once. Resolves to the last durable state.
   * @throws BodyAborted when `body` fails or `signal` fires: what was received until then was made durable and told to `onDurable`.
   * @throws StoreUnavailable when the store fails.
   * @throws ContentTooLarge, WriteLost
   */
  append(state: WriteState, body: Readable, options: AppendOptions): Promise<WriteState>
  /**
   * Moves unfinished content out of reach of a writer that may still be alive, though its right to write has ended: what
   * is durable is found under the state that this resolves to, and nothing that is still done to `state` changes it.
   * The old key and what may lie under it are the caller's to give up. May cost a copy. A store in which a writer of a
   * later `attempt` is out of reach already answers `state` itself.
   * @throws StoreUnavailable when the store fails; `state` is as it was.
   */
  fence(state: WriteState): Promise<WriteState>
  /**
   * Makes the content final under its key: all or nothing, at a cost that does not grow with its size. Repeating it is
   * success. @throws WriteLost
   */
  finish(state: WriteState): Promise<StorageKey>
  /**
   * Forgets unfinished content. Absent is success; never touches a finished blob. What a store keeps whole under its
   * key already before `finish` goes by `delete`, so that removing all of some content is both.
   */
  abort(state: WriteState): Promise<void>
  /**
   * Writes the blob (or one range of it) to `to` with back-pressure, without ending `to`.
   * @throws BlobMissing before the first byte when the key names nothing. Releases everything when `signal` fires or `to` closes.
   */
  send(key: StorageKey, range: ByteRange | undefined, to: Writable, signal: AbortSignal): Promise<void>
  /** Reads the finished blob from its start, for hashing it again. @throws BlobMissing */
  read(key: StorageKey, signal: AbortSignal): AsyncIterable<Uint8Array>
  /** Size in bytes, or undefined when the key names nothing. */
  stat(key: StorageKey): Promise<{ readonly size: number } | undefined>
  /** Removes finished blobs; absent is success. */
  delete(keys: readonly StorageKey[]): Promise<void>
  /** Everything in the store, for reconciling; never used by a request. One key may come more than once. */
  list(): AsyncIterable<StoredItem>
  /** The marker, undefined where none was ever written. It lies under a name that is no key, so `list` leaves it out. */
  readMarker(): Promise<string | undefined>
  /** Writes the marker, a text of up to a KiB, in the place of the one before; all or nothing, of several the last one. */
  writeMarker(text: string): Promise<void>
  /** Whether the store can be read and written now, without listing anything. @throws StoreUnavailable */
  check(): Promise<void>
  close(): Promise<void>
}

/** A store whose blobs clients can fetch themselves. */
export interface Presigning {
  /** A URL that gives the blob to whoever GETs it (also a range of it) within `ttlSeconds`, as `contentType`. */
  presign(key: StorageKey, ttlSeconds: number, contentType: string): Promise<URL>
}
