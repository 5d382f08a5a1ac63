import { createAdministration } from '../../src/access/administration.ts'
import type { ForeignTokens } from '../../src/access/bearer-tokens.ts'
import type { KeyLifetimes } from '../../src/access/keys.ts'
import { openAccess } from '../../src/access/open.ts'
import type { BlobStore } from '../../src/storage/blob-store.ts'
import { PASSWORD } from './access.ts'
import { NO_MIRRORS } from './administration.ts'
import { type TestApp, startApp } from './app.ts'

const MINUTE_MS = 60_000
const DAY_MS = 86_400_000
const KEY_LIFETIMES: KeyLifetimes = { rotationMs: 30 * DAY_MS, longestTokenMs: DAY_MS }

/** How long an access token of {@link startAccessApp} is good for. */
export const TOKEN_LIFETIME_MS = 10 * MINUTE_MS
/** How long an upload that nobody writes to may be gone on with there. */
export const UPLOAD_EXPIRY_MS = DAY_MS

/** A registry with logins in the test's own process, by a clock of the test; the first administrator is `admin`. */
export interface AccessApp extends TestApp<BlobStore> {
  /** Moves the clock that tokens are signed and judged by. */
  advance(ms: number): void
  /** Writes what is collected in memory, which otherwise happens now and then, and when a server stops. */
  settle(): Promise<void>
}

/** Starts one on a fresh index. */
export async function startAccessApp(
  options: { readonly allowPrivateIssuers?: boolean; readonly foreign?: ForeignTokens } = {},
): Promise<AccessApp> {
  let aheadMs = 0
  let settle = async (): Promise<void> => undefined
  const app = await startApp({
    wrapStore: store => store,
    async access(db) {
      const access = await openAccess({
        db,
        service: 'berth',
        tokenLifetimeMs: TOKEN_LIFETIME_MS,
        uploadExpiryMs: UPLOAD_EXPIRY_MS,
        revocationMaxAgeMs: 0,
        keyLifetimes: KEY_LIFETIMES,
        auditRetentionMs: DAY_MS,
        adminPassword: PASSWORD,
        authenticators: [],
        foreign: options.foreign ?? { verify: () => Promise.resolve(undefined) },
        allowPrivateIssuers: options.allowPrivateIssuers ?? false,
        guesses: { perAccount: 10, perClient: 100, windowSeconds: 300 },
        onError: error => {
          throw error
        },
        now: () => Date.now() + aheadMs,
      })
      settle = () => access.close()
      const administration = createAdministration({
        isOpen: false,
        db,
        storage: {
          names: ['filesystem'],
          ownership: async () => 'ours',
          adopt: async () => undefined,
        },
        mirrors: NO_MIRRORS,
        syncs: [],
        keyLifetimes: KEY_LIFETIMES,
        confirmPassword: access.confirmPassword,
        onPrincipalChanged: id => access.states.forget(id),
        onKeysChanged: () => access.keys.refresh(),
        onWorkRequested: () => undefined,
      })
      const { authority } = access
      return {
        authority,
        administration,
        version: 'test',
        publicUrl: undefined,
        realm: undefined,
        allowPlainHttp: false,
      }
    },
  })
  return {
    ...app,
    advance(ms) {
      aheadMs += ms
    },
    settle: async () => await settle(),
    async close() {
      await settle()
      await app.close()
    },
  }
}
