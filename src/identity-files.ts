import { readFile } from 'node:fs/promises'
import type { Authenticator } from './access/authenticator.ts'
import { htpasswdAuthenticator, htpasswdVouching, mirrorHtpasswd } from './access/htpasswd-login.ts'
import type { Vouching } from './access/principal-states.ts'
import { type Htpasswd, parseHtpasswd } from './auth/htpasswd.ts'
import { ConfigError } from './config.ts'
import { watchFiles } from './file-watch.ts'
import type { Log } from './log.ts'
import type { Database } from './metadata/database.ts'

/** Who logs in by an htpasswd file. */
export interface HtpasswdLogins {
  readonly authenticators: readonly Authenticator[]
  readonly isVouchedFor: Vouching
  /**
   * Reads the file, gives its users rows, and follows it until `opened` is closed. The first administrator comes before
   * them. @throws ConfigError where it cannot be used.
   */
  start(opened: AsyncDisposableStack): Promise<void>
}

const NO_HTPASSWD: HtpasswdLogins = {
  authenticators: [],
  isVouchedFor: htpasswdVouching(() => undefined),
  start: () => Promise.resolve(),
}

/**
 * Users of the htpasswd file at `path`, or none without one. The file is read again when it changes; one that cannot be used
 * is logged, and the former goes on.
 */
export function htpasswdLogins(path: string | undefined, db: Database, log: Log): HtpasswdLogins {
  if (path === undefined) return NO_HTPASSWD
  const read = async (): Promise<Htpasswd> => parseHtpasswd(await readFile(path, 'utf8'))
  let current = parseHtpasswd('')
  const mirror = async (): Promise<void> => {
    const taken = await mirrorHtpasswd(db, current)
    if (taken.length > 0)
      log.warn({ users: taken }, 'auth.htpasswd: these names belong to others here, who log in alone')
  }
  return {
    authenticators: [htpasswdAuthenticator(db, () => current)],
    isVouchedFor: htpasswdVouching(() => current),
    async start(opened) {
      const stop = await watchFiles([path], {
        async changed() {
          current = await read()
          log.info({ users: current.hashes.size }, 'auth.htpasswd was read again')
          await mirror()
        },
        failed: err => log.error({ err }, 'auth.htpasswd cannot be used as it is now: the former goes on'),
      })
      opened.defer(stop)
      current = await asSetting('auth.htpasswd', read())
      await mirror()
    },
  }
}

/** What a file that a setting names holds. @throws ConfigError where it cannot be used. */
async function asSetting<T>(path: string, reading: Promise<T>): Promise<T> {
  try {
    return await reading
  } catch (error) {
    throw new ConfigError([{ path, message: error instanceof Error ? error.message : String(error) }])
  }
}
