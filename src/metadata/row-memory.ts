const MOST_ROWS = 20_000

/** What {@link RowMemory} goes by. */
export interface RowMemoryOptions {
  /** See `Database.changes`. */
  readonly changes: () => number | undefined
  /** How old a row may be: what is said of leases changes with time alone. Milliseconds. */
  readonly maxAgeMs: number
}

/**
 * Rows that were read while this process is the only writer of the index: they are what the index holds for as long as
 * it commits nothing. Where others write too, nothing is remembered.
 */
export class RowMemory<R> {
  readonly #options: RowMemoryOptions
  readonly #rows = new Map<string, R>()
  #changes: number | undefined
  #since = 0

  constructor(options: RowMemoryOptions) {
    this.#options = options
  }

  /** The row under `id` as it is now, where it is known. */
  get(id: string): R | undefined {
    return this.#isTrue() ? this.#rows.get(id) : undefined
  }

  /** Called before rows are read: what is read may be kept by what this answers. */
  reading(): (id: string, row: R) => void {
    const changes = this.#options.changes()
    if (changes === undefined) return () => undefined
    if (!this.#isTrue()) {
      this.#rows.clear()
      this.#changes = changes
      this.#since = performance.now()
    }
    return (id, row) => {
      // Rows that were read before a commit and are kept after it would be kept as what they are no more.
      if (changes !== this.#changes) return
      const [oldest] = this.#rows.keys()
      if (oldest !== undefined && this.#rows.size >= MOST_ROWS) this.#rows.delete(oldest)
      this.#rows.set(id, row)
    }
  }

  #isTrue(): boolean {
    const { changes, maxAgeMs } = this.#options
    return this.#changes !== undefined && changes() === this.#changes && performance.now() - this.#since < maxAgeMs
  }
}
