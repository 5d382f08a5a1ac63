import type { Digest } from '../oci/digest.ts'
import type { Source, Target } from './sides.ts'

/** The repositories between which a blob goes. */
export interface BlobWay {
  readonly repository: string
  readonly target: string
}

/** The blobs of one run: what several images have in common is moved once. */
export class BlobCopies {
  readonly #source: Source
  readonly #target: Target
  readonly #moving = new Map<Digest, Promise<unknown>>()
  /** Where at the target this run has put a blob. */
  readonly #homes = new Map<Digest, string>()

  constructor(source: Source, target: Target) {
    this.#source = source
    this.#target = target
  }

  /**
   * Makes sure that a blob is in a repository of the target. Answers the bytes that were moved, undefined where it was
   * there. @throws UpstreamFailure, RegistryError
   */
  async copy(way: BlobWay, digest: Digest, onBytes: (count: number) => void): Promise<number | undefined> {
    // One after the other: the second finds what the first has brought.
    for (let moving = this.#moving.get(digest); moving !== undefined; moving = this.#moving.get(digest)) await moving
    const copying = this.#copy(way, digest, onBytes)
    const settled = copying.then(
      () => undefined,
      () => undefined,
    )
    this.#moving.set(digest, settled)
    try {
      return await copying
    } finally {
      this.#moving.delete(digest)
    }
  }

  async #copy({ repository, target }: BlobWay, digest: Digest, onBytes: (count: number) => void) {
    const open = async (start: number) => await this.#source.blob(repository, digest, start)
    const bytes = await this.#target.putBlob(target, digest, { open, onBytes, home: this.#homes.get(digest) })
    if (bytes !== undefined) this.#homes.set(digest, target)
    return bytes
  }
}
