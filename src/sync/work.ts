import type { Database, Transaction } from '../metadata/database.ts'
import type { SyncRunRow } from '../metadata/sync-runs.ts'
import type { Image, Moved } from './copy-image.ts'
import type { Renaming, TagSelection } from './selection.ts'
import type { Source, Target } from './sides.ts'

/** A sync as it is set. */
export interface Sync extends Renaming {
  readonly name: string
  /** Names and patterns of repositories at the source. */
  readonly repositories: readonly string[]
  readonly tags: TagSelection
  /** Undefined: all. */
  readonly platforms: readonly string[] | undefined
  readonly referrers: boolean
  /** Undefined: it runs when somebody says so. */
  readonly schedule: string | undefined
  readonly timeZone: string
  /** Images at once. */
  readonly maxConcurrent: number
}

/** Both sides of a sync while a run of it lasts. */
export interface Sides extends AsyncDisposable {
  readonly source: Source
  readonly target: Target
}

/** A run that this process works off. */
export interface Work {
  readonly db: Database
  readonly sync: Sync
  readonly sides: Sides
  readonly run: SyncRunRow
  /** Fires when the process stops, the run was stopped, or another process took it over. */
  readonly signal: AbortSignal
  /** What is under way, to be told with the next renewal. */
  readonly underWay: Map<Image, Moved>
  /** A transaction of the run: nothing in it happens unless the run is still this process's. */
  readonly transaction: <T>(work: (tx: Transaction) => Promise<T>) => Promise<T>
}
