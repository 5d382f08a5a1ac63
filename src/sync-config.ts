import type { ConfigFault, Environment } from './config-sources.ts'
import { type MirrorConfig, mirrorsOf } from './mirror-config.ts'
import type { SyncSettings } from './sync-settings.ts'

/** A sync as it is set, with what its files hold. */
export interface SyncConfig {
  readonly name: string
  readonly direction: 'pull' | 'push'
  /** The other registry, as a mirror has its upstream. */
  readonly remote: MirrorConfig
  /** Names and patterns at the source. */
  readonly repositories: readonly string[]
  readonly stripPrefix: string | undefined
  readonly addPrefix: string | undefined
  readonly tags: {
    readonly match: readonly string[]
    readonly exclude: readonly string[]
    readonly versions: string | undefined
    readonly prereleases: boolean
    readonly newest: number | undefined
    readonly newestBy: 'version' | 'created'
  }
  /** Undefined: all. */
  readonly platforms: readonly string[] | undefined
  readonly referrers: boolean
  readonly schedule: string | undefined
  readonly timeZone: string
  readonly maxConcurrent: number
}

const IMAGES_AT_ONCE = 3

/** The syncs of the settings; adds what is wrong with their files to `faults`. */
export function syncsOf(
  all: Readonly<Record<string, SyncSettings>>,
  env: Environment,
  cwd: string,
  faults: ConfigFault[],
): SyncConfig[] {
  return Object.entries(all).flatMap(([name, settings]) => {
    const remote = remoteOf(name, settings, env, cwd, faults)
    if (remote === undefined) return []
    const { tags = {} } = settings
    return {
      name,
      direction: settings.direction,
      remote,
      repositories: settings.repositories.map(repository => fullName(repository, settings.direction, remote)),
      stripPrefix: settings.stripPrefix,
      addPrefix: settings.addPrefix,
      tags: {
        match: tags.match ?? ['*'],
        exclude: tags.exclude ?? [],
        versions: tags.versions,
        prereleases: tags.prereleases ?? false,
        newest: tags.newest,
        newestBy: tags.newestBy ?? 'version',
      },
      platforms: settings.platforms,
      referrers: settings.referrers ?? true,
      schedule: settings.schedule,
      timeZone: settings.timeZone ?? 'UTC',
      maxConcurrent: settings.maxConcurrent ?? IMAGES_AT_ONCE,
    }
  })
}

/** The other registry is reached as upstreams of mirrors are, with the same settings. */
function remoteOf(
  name: string,
  settings: SyncSettings,
  env: Environment,
  cwd: string,
  faults: ConfigFault[],
): MirrorConfig | undefined {
  const { url, username, password, passwordFile, trustedHosts, allowPrivate, ca, proxy } = settings
  const own: ConfigFault[] = []
  const [remote] = mirrorsOf(
    { [name]: { url, username, password, passwordFile, trustedHosts, allowPrivate, ca, proxy } },
    env,
    cwd,
    own,
  )
  faults.push(
    ...own.map(({ path, message }) => ({ path: path.replace(/^mirror\.upstreams\./, 'sync.jobs.'), message })),
  )
  return remote
}

/** On Docker Hub a name of one part means `library/`. */
function fullName(repository: string, direction: SyncConfig['direction'], { defaultNamespace }: MirrorConfig): string {
  const isShort = direction === 'pull' && defaultNamespace !== undefined && !/[/*]/.test(repository)
  return isShort ? `${defaultNamespace}/${repository}` : repository
}
