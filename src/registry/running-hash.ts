import { type Hash, createHash } from 'node:crypto'
import type { DigestAlgorithm } from '../oci/digest.ts'
import type { PrefixDigests } from '../metadata/uploads.ts'

/** Hash states of one upload's content from its first byte, kept in memory between requests that this process serves. */
export class RunningHash {
  readonly #hashes = new Map<DigestAlgorithm, Hash>()
  #offset = 0

  constructor(algorithms: Iterable<DigestAlgorithm>) {
    for (const algorithm of algorithms) this.#hashes.set(algorithm, createHash(algorithm))
  }

  /** Bytes hashed so far. */
  get offset(): number {
    return this.#offset
  }

  /** Takes the next bytes. */
  update(bytes: Uint8Array): void {
    for (const hash of this.#hashes.values()) hash.update(bytes)
    this.#offset += bytes.byteLength
  }

  /** Whether everything taken so far has these digests; without any to compare it is not known to. */
  follows(prefix: PrefixDigests): boolean {
    const mine = Object.entries(this.digests())
    const theirs: Readonly<Record<string, string | undefined>> = prefix
    return mine.length > 0 && mine.every(([algorithm, digest]) => theirs[algorithm] === digest)
  }

  /** The digests of everything taken so far; going on afterwards is possible. */
  digests(): PrefixDigests {
    return Object.fromEntries(
      [...this.#hashes].map(([algorithm, hash]) => [algorithm, `${algorithm}:${hash.copy().digest('hex')}`]),
    )
  }
}

/** The hashes of uploads in progress, bounded in number: one that was pushed out costs a read at the close, nothing else. */
export class RunningHashes {
  readonly #limit: number
  readonly #byUpload = new Map<string, RunningHash>()

  constructor(limit = 10_000) {
    this.#limit = limit
  }

  /**
   * The hash to go on with at the session's offset; a fresh one at 0, undefined where this process does not know what
   * came before. The row decides: another process may have stored other bytes up to the same offset.
   */
  resume(
    upload: { readonly id: string; readonly offset: number; readonly prefix_digest: PrefixDigests },
    algorithms: Iterable<DigestAlgorithm>,
  ): RunningHash | undefined {
    const known = this.#byUpload.get(upload.id)
    this.#byUpload.delete(upload.id)
    if (upload.offset === 0) return new RunningHash(algorithms)
    return known?.offset === upload.offset && known.follows(upload.prefix_digest) ? known : undefined
  }

  /** Keeps a hash for the next request of that upload. */
  keep(upload: string, hash: RunningHash): void {
    this.#byUpload.delete(upload)
    this.#byUpload.set(upload, hash)
    const oldest = this.#byUpload.keys().next()
    if (this.#byUpload.size > this.#limit && oldest.done !== true) this.#byUpload.delete(oldest.value)
  }

  /** Forgets an upload that ended. */
  forget(upload: string): void {
    this.#byUpload.delete(upload)
  }
}
