import { randomUUID } from 'node:crypto'
import type { Database } from '../metadata/database.ts'
import {
  type StoreClaim,
  beginStamp,
  databaseId,
  endStamp,
  findClaim,
  isStoreInUse,
  recordStamp,
  renewDatabaseId,
} from '../metadata/store-claims.ts'
import type { BlobStore } from '../storage/blob-store.ts'

/**
 * Whose a store is. Bytes are deleted in `ours` alone.
 * - `settling`: ours, since so short a time that another process on a copy of this database may not have seen it yet.
 * - `unclaimed`: it has no marker, and is not empty or should not be.
 * - `foreign`: its marker names another database.
 * - `contested`: this database and a copy of it have both been at work on the store.
 */
export type Ownership = 'ours' | 'settling' | 'unclaimed' | 'foreign' | 'contested'

/** How ownership is told, in milliseconds. */
export interface OwnerTimes {
  /** How long nothing is deleted after a start; the processes of a copy check more often than that. */
  readonly settleMs: number
  /** How long writing a marker may take. */
  readonly stampMs: number
}

const TIMES: OwnerTimes = { settleMs: 180_000, stampMs: 600_000 }

/** What a marker says. */
interface Marker {
  readonly owner: string
  readonly incarnation: string
  readonly stamp: string
  readonly isContested?: boolean
}

/**
 * This process's account of whose a store is. The marker names the database by an id that was made once, by its
 * incarnation, which a restored dump does not have, and by a stamp that every start renews. A copy that has everything
 * (of a disk, of a data directory) either knows only an old stamp, or writes one that we do not know: then we say so in
 * the marker, and neither of the two deletes anything until one adopts the store.
 */
export class StoreOwner {
  readonly #db: Database
  readonly #store: BlobStore
  readonly #incarnation: string
  readonly #times: OwnerTimes
  #last: Ownership | undefined

  constructor(db: Database, store: BlobStore, incarnation: string, times: OwnerTimes = TIMES) {
    this.#db = db
    this.#store = store
    this.#incarnation = incarnation
    this.#times = times
  }

  /** What the last check or claim found; undefined before the first. */
  get last(): Ownership | undefined {
    return this.#last
  }

  /** For the start: renews the stamp of a store that is ours, and answers what {@link check} does. @throws as it does */
  async claim(): Promise<Ownership> {
    const { stamp } = await this.#look()
    if (stamp !== undefined) await this.#stamp(stamp, this.#times.settleMs)
    return await this.check()
  }

  /** Whose the store is now; one that is empty becomes ours. @throws StoreUnavailable, DatabaseUnavailable */
  async check(): Promise<Ownership> {
    const before = this.#last
    let seen = await this.#look()
    if (seen.ownership === 'unclaimed' && (await this.#isFree())) {
      await this.#stamp(null, 0)
      seen = await this.#look()
    }
    this.#last = seen.ownership
    if (seen.stamp !== undefined && seen.isAbandoned === true) {
      await this.#stamp(seen.stamp, this.#times.settleMs)
    } else if (seen.ownership === 'contested' && (before === 'ours' || before === 'settling')) {
      await this.#contest()
    }
    return seen.ownership
  }

  /** Whose the store is by marker and rows; `stamp` is the marker's where it is ours. */
  async #look(): Promise<{ readonly ownership: Ownership; readonly stamp?: string; readonly isAbandoned?: boolean }> {
    const owner = await databaseId(this.#db)
    let claim = await findClaim(this.#db, this.#store.name)
    for (;;) {
      const text = await this.#store.readMarker()
      if (text === undefined) return { ownership: 'unclaimed' }
      const marker = parse(text)
      if (marker?.owner !== owner || marker.incarnation !== this.#incarnation) return { ownership: 'foreign' }
      if (marker.isContested === true) return { ownership: 'contested' }
      if (claim !== undefined && knows(claim, marker.stamp)) {
        const isAbandoned = claim.next_stamp !== null && claim.is_stamping_over
        return { ownership: claim.settled ? 'ours' : 'settling', stamp: marker.stamp, isAbandoned }
      }
      // Another process of ours may have renewed the stamp between our two looks.
      const again = await findClaim(this.#db, this.#store.name)
      if (again?.stamp === claim?.stamp && again?.next_stamp === claim?.next_stamp) return { ownership: 'contested' }
      claim = again
    }
  }

  /** Nothing in it, and nothing that should be: an empty directory may be one whose disk is not mounted. */
  async #isFree(): Promise<boolean> {
    if (await isStoreInUse(this.#db, this.#store.name)) return false
    for await (const _item of this.#store.list()) return false
    return true
  }

  async #stamp(found: string | null, settleMs: number): Promise<void> {
    const { name } = this.#store
    const stamp = await this.#db.transaction(tx => beginStamp(tx, name, found, this.#times.stampMs))
    if (stamp === undefined) return
    await this.#write({ stamp })
    await this.#db.transaction(tx => endStamp(tx, name, stamp, settleMs))
  }

  async #contest(): Promise<void> {
    await this.#write({ stamp: randomUUID(), isContested: true })
  }

  async #write(more: Pick<Marker, 'stamp' | 'isContested'>): Promise<void> {
    const marker: Marker = { owner: await databaseId(this.#db), incarnation: this.#incarnation, ...more }
    await this.#store.writeMarker(JSON.stringify(marker))
  }
}

function knows({ stamp, next_stamp: next }: StoreClaim, found: string): boolean {
  return found === stamp || found === next
}

function parse(text: string): Marker | undefined {
  try {
    const value = JSON.parse(text) as Partial<Marker> | null
    if (typeof value?.owner !== 'string' || typeof value.incarnation !== 'string') return undefined
    return typeof value.stamp === 'string' ? (value as Marker) : undefined
  } catch {
    return undefined
  }
}

/**
 * Makes stores this database's, whoever's they were: it gets an id that no copy of it has, and every marker names that.
 * A failure in between leaves stores that are not ours, and is mended by adopting again.
 * @throws StoreUnavailable, DatabaseUnavailable
 */
export async function adoptStores(db: Database, stores: readonly BlobStore[], incarnation: string): Promise<void> {
  const owner = await db.transaction(renewDatabaseId)
  for (const store of stores) {
    const stamp = randomUUID()
    const marker: Marker = { owner, incarnation, stamp }
    await db.transaction(tx => recordStamp(tx, store.name, stamp))
    await store.writeMarker(JSON.stringify(marker))
  }
}
