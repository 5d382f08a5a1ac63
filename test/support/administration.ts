import type { Actor, AdministrationContext, MirrorControl, StorageControl } from '../../src/access/actor.ts'
import { type Administration, createAdministration } from '../../src/access/administration.ts'
import type { Database } from '../../src/metadata/database.ts'

/** Who administers the machine. */
export const LOCAL: Actor = {
  identity: { kind: 'local', name: 'local administrator' },
  source: { client: 'socket', requestId: 'test' },
}

const NO_STORES: StorageControl = {
  names: [],
  ownership: () => Promise.resolve('unknown'),
  adopt: () => Promise.resolve(),
}

/** No mirrors. */
export const NO_MIRRORS: MirrorControl = {
  list: () => Promise.resolve([]),
  flush: () => Promise.resolve(),
  test: () => Promise.resolve(undefined),
}

/** Administration of a registry without logins, on an index. */
export function withAdministration(db: Database, parts: Partial<AdministrationContext> = {}): Administration {
  return createAdministration({
    db,
    isOpen: true,
    keyLifetimes: { rotationMs: 1, longestTokenMs: 1 },
    confirmPassword: async () => undefined,
    onPrincipalChanged: () => undefined,
    onKeysChanged: () => undefined,
    onWorkRequested: () => undefined,
    storage: NO_STORES,
    mirrors: NO_MIRRORS,
    syncs: [],
    ...parts,
  })
}
