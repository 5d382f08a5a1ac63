const LIMIT_BYTES = 32 * 1024 * 1024

/** Manifest bytes by row id, least recently used out first. They never change under one id, so nothing is ever stale. */
export class PayloadCache {
  readonly #payloads = new Map<number, Uint8Array>()
  #bytes = 0

  /** The bytes of `id`, read by `load` where they are not in memory. */
  async get(id: number, load: () => Promise<Uint8Array>): Promise<Uint8Array> {
    const known = this.#payloads.get(id)
    if (known !== undefined) {
      this.#payloads.delete(id)
      this.#payloads.set(id, known)
      return known
    }
    const loaded = await load()
    if (!this.#payloads.has(id)) {
      this.#payloads.set(id, loaded)
      this.#bytes += loaded.byteLength
      for (const [oldest, payload] of this.#payloads) {
        if (this.#bytes <= LIMIT_BYTES) break
        this.#payloads.delete(oldest)
        this.#bytes -= payload.byteLength
      }
    }
    return loaded
  }
}
