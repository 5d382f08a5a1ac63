import { type BlobStore, type Presigning, StoreUnavailable } from './blob-store.ts'

/** A store in working order; with `presigning` clients are to be redirected to it. */
export interface OpenStore {
  readonly store: BlobStore
  readonly presigning?: Presigning | undefined
}

/** The stores of a registry. Rows name the one that holds their bytes; new content goes to the first. */
export class Stores {
  readonly #first: BlobStore
  readonly #byName: ReadonlyMap<string, OpenStore>

  constructor(first: OpenStore, ...others: readonly OpenStore[]) {
    this.#first = first.store
    this.#byName = new Map([first, ...others].map(open => [open.store.name, open]))
  }

  /** The store that takes new content. */
  get first(): BlobStore {
    return this.#first
  }

  /** Every store, the first one first. */
  get all(): readonly BlobStore[] {
    return [...this.#byName.values()].map(open => open.store)
  }

  get names(): readonly string[] {
    return [...this.#byName.keys()]
  }

  /** The store that a row names. @throws StoreUnavailable where it is not configured: the bytes may well be there. */
  of(name: string): BlobStore {
    return this.#of(name).store
  }

  /** What lets clients fetch from the store that a row names, where they are to. @throws StoreUnavailable as {@link of}. */
  presigningOf(name: string): Presigning | undefined {
    return this.#of(name).presigning
  }

  #of(name: string): OpenStore {
    const open = this.#byName.get(name)
    if (open === undefined)
      throw new StoreUnavailable(`The index names the store ${name}, which is not configured here`)
    return open
  }
}
