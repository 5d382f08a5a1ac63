import type { Database } from '../metadata/database.ts'
import type { Registry } from '../registry/registry.ts'
import type { Patience } from './patience.ts'

/** What of this registry a run works with. */
export interface LocalContext {
  readonly registry: Registry
  readonly db: Database
  readonly patience: Patience
  readonly signal: AbortSignal
  /** Who reads and writes, as history and events name it. */
  readonly principal: string
}

/** What a sync writes here. */
export interface LocalTargetContext extends LocalContext {
  /** Whether images may name blobs that are not here. */
  readonly mayLackBlobs: boolean
  /** Repositories whose blobs may be taken for what the other registry has, as regular expressions; none: no repository. */
  readonly siblings: string | undefined
}
