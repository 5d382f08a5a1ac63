import { readFile } from 'node:fs/promises'
import type { Authenticator } from './access/authenticator.ts'
import { htpasswdAuthenticator } from './access/htpasswd-login.ts'
import { type HtpasswdObserver, HtpasswdUsers } from './access/htpasswd-users.ts'
import type { ForeignTokens } from './access/bearer-tokens.ts'
import { foreignTokens } from './access/foreign-tokens.ts'
import { createIssuerFetch } from './access/issuer-fetch.ts'
import { type IssuerDown, IssuerKeys, keySetsAt } from './access/issuer-keys.ts'
import { type TrustedKeys, readKeyFile, readRootBundle } from './access/trusted-keys.ts'
import { type Htpasswd, parseHtpasswd } from './auth/htpasswd.ts'
import { ConfigError, type IssuerConfig } from './config.ts'
import { watchFiles } from './file-watch.ts'
import type { Log } from './log.ts'
import type { Database } from './metadata/database.ts'

/** Who logs in by an htpasswd file. */
export interface HtpasswdLogins {
  readonly authenticators: readonly Authenticator[]
  /**
   * Reads the file, makes rows say what it says, and follows it until `opened` is closed. The first administrator comes
   * before its users. @throws ConfigError where it cannot be used.
   */
  start(opened: AsyncDisposableStack): Promise<void>
}

/**
 * Users of the htpasswd file at `path`; without one nobody, also who was in one before. The file is read again when it
 * changes; one that cannot be used is logged, and the former goes on. `everyMs`: how often it is looked at, and how often
 * rows are tried that could not be written.
 */
export function htpasswdLogins(
  path: string | undefined,
  db: Database,
  log: Log,
  everyMs: { readonly look?: number; readonly retry?: number } = {},
): HtpasswdLogins {
  const observer: HtpasswdObserver = {
    mirrored({ taken, changed, removed }) {
      if (changed.length + removed.length > 0)
        log.info({ changed, removed }, 'auth.htpasswd: sessions of these users were ended')
      if (taken.length > 0)
        log.warn({ users: taken }, 'auth.htpasswd: these names belong to others here, who log in alone')
    },
    delayed: err =>
      log.error({ err }, 'auth.htpasswd was read, but the index cannot be written now: trying until it can'),
  }
  const users = new HtpasswdUsers(db, observer, everyMs.retry)
  if (path === undefined) return { authenticators: [], start: () => users.written() }
  const read = async (): Promise<Htpasswd> => parseHtpasswd(await readFile(path, 'utf8'))
  return {
    authenticators: [htpasswdAuthenticator(db, users)],
    async start(opened) {
      opened.defer(() => users.close())
      const stop = await watchFiles(
        [path],
        {
          async changed() {
            users.take(await read())
            log.info({ users: users.file.hashes.size }, 'auth.htpasswd was read again')
            users.keepWriting()
          },
          failed: err => log.error({ err }, 'auth.htpasswd cannot be used as it is now: the former goes on'),
        },
        everyMs.look,
      )
      opened.defer(stop)
      users.take(await asSetting('auth.htpasswd', read()))
      await users.written()
    },
  }
}

/** Issuers of tokens besides ourselves. */
export interface ForeignLogins {
  readonly foreign: ForeignTokens
  /**
   * Reads what their files say, and follows them until `opened` is closed; files that cannot be used later are logged, and
   * what they said before goes on. @throws ConfigError where they cannot be used now.
   */
  start(opened: AsyncDisposableStack): Promise<void>
}

/** The issuers that the settings name. Who writes those may have us ask any address, also over plain HTTP. */
export function foreignLogins(issuers: readonly IssuerConfig[], log: Log): ForeignLogins {
  const addresses = issuers.flatMap(({ issuer, jwksUrl }) =>
    jwksUrl === undefined ? [] : [[issuer, jwksUrl] as const],
  )
  const read = keySetsAt(new Map(addresses), createIssuerFetch({ allowPrivate: true }))
  const keySets = new IssuerKeys(read, Date.now, issuerDown(log))
  const trusted = new Map<string, TrustedKeys>()
  const parties = issuers.map(({ issuer, audience, jwksUrl }) => ({
    issuer,
    audience,
    trusted: () => trusted.get(issuer) ?? NO_KEYS,
    hasKeySet: jwksUrl !== undefined,
  }))
  return {
    foreign: foreignTokens(parties, keySets),
    async start(opened) {
      for (const [index, config] of issuers.entries()) {
        const { issuer, keyFile, rootCertBundle } = config
        const files = [keyFile, rootCertBundle].filter(path => path !== undefined)
        if (files.length === 0) continue
        const read = async (): Promise<void> => void trusted.set(issuer, await readTrusted(config))
        const stop = await watchFiles(files, {
          async changed() {
            await read()
            log.info({ issuer }, 'the keys of an issuer were read again')
          },
          failed: err =>
            log.error({ issuer, err }, 'the files of an issuer cannot be used as they are now: its former keys go on'),
        })
        opened.defer(stop)
        await asSetting(`auth.issuers.${index}`, read())
      }
    },
  }
}

/** Says in the log that an issuer cannot be asked for its keys. */
export function issuerDown(log: Log): IssuerDown {
  return (issuer, err) =>
    log.warn({ issuer, err }, 'an issuer cannot be asked for its keys: those it gave last count for a day at most')
}

const NO_KEYS: TrustedKeys = { keys: new Map(), roots: [] }

async function readTrusted({ keyFile, rootCertBundle }: IssuerConfig): Promise<TrustedKeys> {
  const named = keyFile === undefined ? NO_KEYS : await readAs(keyFile, readKeyFile)
  const bundle = rootCertBundle === undefined ? NO_KEYS : await readAs(rootCertBundle, readRootBundle)
  return { ...named, keys: new Map([...bundle.keys, ...named.keys]), roots: bundle.roots }
}

/** @throws Error with the file's name in front of what is wrong with it. */
async function readAs<T>(path: string, parse: (content: string) => T): Promise<T> {
  const content = await readFile(path, 'utf8')
  try {
    return parse(content)
  } catch (cause) {
    throw new Error(`${path} ${cause instanceof Error ? cause.message : String(cause)}`, { cause })
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
