import { createHash } from 'node:crypto'

/** Reproducible random choices: mulberry32. */
export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** A number from 0 up to 1, without 1. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = this.#state
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }

  /** A whole number from `low` to `high`, both inclusive. */
  between(low: number, high: number): number {
    return low + Math.floor(this.next() * (high - low + 1))
  }

  chance(share: number): boolean {
    return this.next() < share
  }

  pick<T>(items: readonly [T, ...T[]]): T {
    return items[this.between(0, items.length - 1)] ?? items[0]
  }

  /** `length` bytes that compress to nothing and that the seed determines. */
  bytes(length: number): Buffer<ArrayBuffer> {
    const out = Buffer.alloc(length)
    const unit = createHash('sha512').update(String(this.next())).digest()
    for (let at = 0; at < length; at += unit.byteLength) {
      unit.writeUInt32LE(at, 0)
      unit.copy(out, at)
    }
    return out
  }
}

/** Size and sha256 of content, which is enough to know it again. */
export interface Content {
  readonly digest: string
  readonly size: number
}

/** A blob that was acknowledged in a repository. */
export interface AcknowledgedBlob extends Content {
  readonly repository: string
}

/** A manifest that was acknowledged. */
export interface AcknowledgedManifest extends Content {
  readonly repository: string
  readonly mediaType: string
}

/** An upload session that a kill interrupted. */
export interface InterruptedUpload {
  readonly repository: string
  /** Path and query of its Location. */
  readonly path: string
  readonly bytes: Buffer<ArrayBuffer>
  readonly digest: string
  /** What the server has acknowledged as received. */
  acknowledged: number
}

/** What a tag may be found to be. */
export interface TagState {
  readonly repository: string
  readonly tag: string
  /** Every digest that was ever asked for. */
  readonly possible: Set<string>
  /** What it must be: the last push or delete was answered. `null`: absent. Undefined: the answer was cut off. */
  certain: string | null | undefined
}

/** What the pushers were told, which the registry must keep, and what they asked for without an answer. */
export class Ledger {
  readonly blobs = new Map<string, AcknowledgedBlob>()
  readonly manifests = new Map<string, AcknowledgedManifest>()
  readonly tags = new Map<string, TagState>()
  readonly interrupted: InterruptedUpload[] = []
  /** Digests of all content that was ever sent whole or in part. */
  readonly sent = new Set<string>()
  cutRequests = 0
  resumed = 0
  mounted = 0
  deleted = 0

  acknowledgeBlob(repository: string, { digest, size }: Content): void {
    this.blobs.set(`${repository} ${digest}`, { repository, digest, size })
  }

  tag(repository: string, tag: string): TagState {
    const key = `${repository} ${tag}`
    const state = this.tags.get(key) ?? { repository, tag, possible: new Set(), certain: null }
    this.tags.set(key, state)
    return state
  }
}
