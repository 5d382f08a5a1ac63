import type { Actor, StorageControl } from '../../src/access/actor.ts'
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

/** Administration of a registry without logins, on an index. */
export function withAdministration(db: Database): Administration {
  return createAdministration({
    db,
    isOpen: true,
    keyLifetimes: { rotationMs: 1, longestTokenMs: 1 },
    confirmPassword: async () => undefined,
    onPrincipalChanged: () => undefined,
    onKeysChanged: () => undefined,
    onWorkRequested: () => undefined,
    storage: NO_STORES,
    syncs: [],
  })
}
