import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { type ConfigFault, type Environment, firstLine } from './config-sources.ts'
import { knownUpstream } from './known-upstreams.ts'
import type { UpstreamSettings } from './mirror-settings.ts'

/** A mirror as it is set, with what its files hold. */
export interface MirrorConfig {
  readonly prefix: string
  readonly url: string
  readonly credentials: { readonly username: string; readonly password: string } | undefined
  readonly allow: readonly string[]
  readonly deny: readonly string[]
  readonly tagLives: readonly { readonly tags: string; readonly ttlMs: number }[]
  readonly defaultTtlMs: number
  readonly offline: boolean
  readonly keepsDeleted: boolean
  readonly namespaces: readonly string[]
  readonly hosts: readonly string[]
  readonly trustedHosts: readonly string[]
  readonly contentHosts: readonly string[]
  readonly defaultNamespace: string | undefined
  readonly allowPrivate: boolean
  /** PEM. */
  readonly ca: string | undefined
  readonly proxy: string | undefined
}

const DEFAULT_TTL_MS = 5 * 60_000

/** The mirrors of the settings; adds what is wrong with their files to `faults`. */
export function mirrorsOf(
  all: Readonly<Record<string, UpstreamSettings>>,
  env: Environment,
  cwd: string,
  faults: ConfigFault[],
): MirrorConfig[] {
  return Object.entries(all).map(([prefix, settings]) => {
    const { hostname, host } = new URL(settings.url)
    const known = knownUpstream(host)
    const read = (key: 'passwordFile' | 'ca'): string | undefined => {
      const file = settings[key]
      try {
        return file === undefined ? undefined : readFileSync(resolve(cwd, file), 'utf8')
      } catch (error) {
        faults.push({ path: `mirror.upstreams.${prefix}.${key}`, message: `cannot be read: ${firstLine(error)}` })
        return undefined
      }
    }
    const password = settings.password ?? read('passwordFile')?.trim()
    const { username } = settings
    return {
      prefix,
      url: settings.url,
      credentials: username === undefined || password === undefined ? undefined : { username, password },
      allow: settings.allow ?? ['**'],
      deny: settings.deny ?? [],
      tagLives: (settings.tagTtls ?? []).map(({ tags, ttl }) => ({ tags, ttlMs: ttl })),
      defaultTtlMs: settings.tagTtl ?? DEFAULT_TTL_MS,
      offline: settings.offline ?? false,
      keepsDeleted: settings.keepDeletedTags ?? false,
      namespaces: settings.namespaces ?? known.namespaces,
      hosts: settings.hosts ?? [],
      trustedHosts: settings.trustedHosts ?? [],
      contentHosts: known.contentHosts,
      defaultNamespace: known.defaultNamespace,
      allowPrivate: settings.allowPrivate ?? false,
      ca: read('ca'),
      proxy: settings.proxy ?? proxyOf(env, hostname),
    }
  })
}

/** The proxy that the environment names for HTTPS, unless it names the host as one to reach without it. */
function proxyOf(env: Environment, host: string): string | undefined {
  const proxy = env['HTTPS_PROXY'] || env['https_proxy']
  if (!proxy) return undefined
  const without = (env['NO_PROXY'] || env['no_proxy'] || '').split(',').map(name => name.trim().toLowerCase())
  const isWithout = without.some(name => {
    const domain = name.replace(/^\*?\.?/, '')
    return name === '*' || (domain !== '' && (host === domain || host.endsWith(`.${domain}`)))
  })
  return isWithout ? undefined : proxy
}
