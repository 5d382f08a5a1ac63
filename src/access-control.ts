import { createServer } from 'node:http'
import type { MirrorControl, RequestedWork, StorageControl } from './access/actor.ts'
import { type Administration, createAdministration } from './access/administration.ts'
import type { KeyLifetimes } from './access/keys.ts'
import { type OpenAccess, openAccess } from './access/open.ts'
import type { AccessRoutes } from './app.ts'
import type { Config } from './config.ts'
import { foreignLogins, htpasswdLogins, issuerDown } from './identity-files.ts'
import type { Job } from './jobs/schedule.ts'
import { listenLocally } from './local-socket.ts'
import type { Log } from './log.ts'
import type { Database } from './metadata/database.ts'
import { RegistryError } from './oci/errors.ts'
import { VERSION } from './version.ts'

/** Who may do what, put together from the settings. */
export interface AccessControl {
  /** Absent where the registry is open. */
  readonly access: OpenAccess | undefined
  readonly administration: Administration
  readonly jobs: readonly Job[]
}

const MINUTE_MS = 60_000
/** Wrong logins are counted over this window. */
const GUESS_WINDOW_SECONDS = 300

/** Opens access control; without logins only its administration, so that principals can be made before they are asked for. */
export async function openAccessControl(
  config: Config,
  db: Database,
  control: { readonly storage: StorageControl; readonly mirrors: MirrorControl },
  log: Log,
  opened: AsyncDisposableStack,
  onWorkRequested: (work: RequestedWork) => void,
): Promise<AccessControl> {
  const access = config.auth.mode === 'token' ? await openLogins(config, db, log, opened) : undefined
  if (access?.nobodyAdministers === true) {
    log.warn("nobody administers the registry: run berth grant add NAME admin '**' on this machine")
  }
  const administration = createAdministration({
    db,
    ...control,
    isOpen: access === undefined,
    syncs: config.syncs.map(({ name, direction, remote, repositories, schedule = null, timeZone }) => {
      return { name, direction, url: remote.url, repositories, schedule, timeZone }
    }),
    keyLifetimes: keyLifetimes(config),
    confirmPassword: access?.confirmPassword ?? nobodyLogsIn,
    onPrincipalChanged: id => access?.states.forget(id),
    onKeysChanged: () => access?.keys.refresh(),
    onWorkRequested,
  })
  return { access, administration, jobs: access === undefined ? [] : jobsOf(access) }
}

async function openLogins(config: Config, db: Database, log: Log, opened: AsyncDisposableStack): Promise<OpenAccess> {
  const { auth } = config
  const htpasswd = htpasswdLogins(auth.htpasswd, db, log)
  const issuers = foreignLogins(auth.issuers, log)
  await issuers.start(opened)
  const access = await openAccess({
    ...auth,
    ...htpasswd,
    db,
    uploadExpiryMs: config.registry.uploadExpiryMs,
    keyLifetimes: keyLifetimes(config),
    foreign: issuers.foreign,
    guesses: {
      perAccount: auth.guessesPerAccount,
      perClient: auth.guessesPerAddress,
      windowSeconds: GUESS_WINDOW_SECONDS,
    },
    onError: err => log.warn({ err }, 'access control could not write'),
    onIssuerDown: issuerDown(log),
  })
  opened.defer(() => access.close())
  await htpasswd.start(opened)
  return access
}

/** Where the registry is open, nobody has a password of his own to confirm. */
async function nobodyLogsIn(): Promise<never> {
  throw new RegistryError('DENIED', { message: 'nobody logs in here' })
}

function keyLifetimes({ auth, registry }: Config): KeyLifetimes {
  return {
    rotationMs: auth.keyRotationMs,
    longestTokenMs: Math.max(auth.tokenLifetimeMs, registry.uploadExpiryMs),
  }
}

function jobsOf(access: OpenAccess): Job[] {
  return [
    { name: 'rotate keys', everyMs: MINUTE_MS, run: () => access.rotateKeys() },
    { name: 'prune access records', everyMs: 10 * MINUTE_MS, run: () => access.prune() },
  ]
}

/** What the application needs for logins. */
export function accessRoutes(config: Config, access: OpenAccess, administration: Administration): AccessRoutes {
  return {
    authority: access.authority,
    administration,
    version: VERSION,
    publicUrl: config.http.publicUrl,
    realm: config.auth.realm,
    allowPlainHttp: config.auth.allowPlainHttp,
  }
}

/** Serves `handle` on the administrator's socket. Where there can be none, the registry runs all the same. */
export async function serveLocally(
  config: Config,
  handle: Parameters<typeof createServer>[1],
  log: Log,
  opened: AsyncDisposableStack,
): Promise<void> {
  const server = createServer(handle)
  try {
    await listenLocally(server, config.data.dir)
  } catch (err) {
    // Some network and desktop file systems know no sockets.
    log.warn({ err }, 'the berth command works only with --server: the data directory can hold no socket')
    return
  }
  opened.defer(async () => {
    const { promise, resolve } = Promise.withResolvers<void>()
    server.close(() => resolve())
    server.closeAllConnections()
    await promise
  })
}
