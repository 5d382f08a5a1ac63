import type { StorageKey } from './blob-store.ts'

/** Whole small blobs, the least recently used of which make room. What is under a key never changes. */
export class SmallBlobs {
  readonly #limitBytes: number
  readonly #byKey = new Map<StorageKey, Uint8Array>()
  #bytes = 0

  /** @param limitBytes bytes of all blobs together */
  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes
  }

  get(key: StorageKey): Uint8Array | undefined {
    const found = this.#byKey.get(key)
    if (found !== undefined) {
      this.#byKey.delete(key)
      this.#byKey.set(key, found)
    }
    return found
  }

  keep(key: StorageKey, bytes: Uint8Array): void {
    this.drop(key)
    this.#byKey.set(key, bytes)
    this.#bytes += bytes.byteLength
    for (const oldest of this.#byKey.keys()) {
      if (this.#bytes <= this.#limitBytes) return
      this.drop(oldest)
    }
  }

  drop(key: StorageKey): void {
    this.#bytes -= this.#byKey.get(key)?.byteLength ?? 0
    this.#byKey.delete(key)
  }
}
