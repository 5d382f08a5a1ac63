import { randomBytes, randomUUID } from 'node:crypto'
import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Database } from '../metadata/database.ts'
import * as rows from '../metadata/mirror-fetches.ts'

/** Where other processes find what this one fetches. */
export interface FetchPlace {
  /** The internal address of this process, without a path. */
  readonly address: string | undefined
  /** The identity of the directory where files on their way lie by name; undefined where they have none. */
  readonly directory: string | undefined
}

/** A fetch that this process does for all. */
export interface HeldFetch {
  readonly kind: 'held'
  readonly id: string
  /** What requests for its bytes are signed with. */
  readonly key: string
  /** Says in which file of the directory its bytes lie, and how many they will be. */
  place(file: string, size: number): Promise<void>
  /** Lets go. Never fails: a lease that could not be given back ends by itself. */
  release(): Promise<void>
}

/** A fetch that another process does. */
export interface OtherFetch extends rows.MirrorFetchRow {
  readonly kind: 'other'
}

/** How a lease lives, in milliseconds. */
export interface FetchLeaseTimes {
  readonly leaseMs: number
  readonly renewMs: number
}

const TIMES: FetchLeaseTimes = { leaseMs: 10_000, renewMs: 2_500 }
const KEY_BYTES = 32
/** Rows whose owner died, and whose blob nobody has asked for since. */
const ENDED_MS = 60_000

/**
 * Which process fetches which blob of a mirror, as rows that all processes see. A lease saves work and decides nothing
 * about content: two owners at once, of which one is late, fetch the same bytes twice and store them once.
 */
export class FetchLeases {
  readonly #db: Database
  readonly #place: () => FetchPlace
  readonly #times: FetchLeaseTimes

  /** `place` is asked whenever a fetch is taken. */
  constructor(db: Database, place: () => FetchPlace, times: FetchLeaseTimes = TIMES) {
    this.#db = db
    this.#place = place
    this.#times = times
  }

  /**
   * Takes the fetch of a blob by compare-and-set, or says who has it. It is free where no lease on it runs, and where its
   * owner is the one that was found to be gone under the id `dead`. It is renewed until it is let go or lost.
   */
  async take(name: RepositoryName, digest: Digest, dead?: string): Promise<HeldFetch | OtherFetch> {
    const { leaseMs } = this.#times
    const id = randomUUID()
    const key = randomBytes(KEY_BYTES).toString('hex')
    for (;;) {
      const fetch = { repository: name, digest, id, key, ...this.#place(), leaseMs, dead }
      if (await this.#db.transaction(tx => rows.takeMirrorFetch(tx, fetch))) return this.#hold(name, digest, id, key)
      const other = await this.find(name, digest)
      if (other !== undefined) return other
    }
  }

  /** Who fetches a blob now. */
  async find(name: RepositoryName, digest: Digest): Promise<OtherFetch | undefined> {
    const row = await rows.findMirrorFetch(this.#db, name, digest)
    return row === undefined ? undefined : { kind: 'other', ...row }
  }

  /** Forgets what dead owners left; answers the names of files that living ones keep in `directory`. */
  async clean(directory: string): Promise<ReadonlySet<string>> {
    await this.#db.transaction(tx => rows.removeEndedMirrorFetches(tx, ENDED_MS))
    return new Set(await rows.listMirrorFetchFiles(this.#db, directory))
  }

  #hold(name: RepositoryName, digest: Digest, id: string, key: string): HeldFetch {
    const { leaseMs, renewMs } = this.#times
    const db = this.#db
    let renewing: Promise<void> | undefined
    const renew = async (): Promise<void> => {
      try {
        const fetch = { repository: name, digest, id, leaseMs }
        if (!(await db.transaction(tx => rows.keepMirrorFetch(tx, fetch)))) clearInterval(timer)
      } catch {
        // The next turn tries again; where the lease ends first, another takes over.
      } finally {
        renewing = undefined
      }
    }
    const timer = setInterval(() => (renewing ??= renew()), renewMs)
    timer.unref()
    return {
      kind: 'held',
      id,
      key,
      place: (file, size) => db.transaction(tx => rows.placeMirrorFetch(tx, name, digest, { id, file, size })),
      async release() {
        clearInterval(timer)
        await renewing
        await db.transaction(tx => rows.removeMirrorFetch(tx, name, digest, id)).catch(() => undefined)
      },
    }
  }
}
