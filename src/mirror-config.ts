import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { type ConfigFault, type Environment, firstLine } from './config-sources.ts'
import { knownUpstream } from './known-upstreams.ts'
import { type UpstreamSettings, namespacesOf } from './mirror-settings.ts'

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
  /** In lower case. */
  readonly namespaces: readonly string[]
  readonly hosts: readonly string[]
  readonly trustedHosts: readonly string[]
  readonly contentHosts: readonly string[]
  readonly defaultNamespace: string | undefined
  readonly allowPrivate: boolean
  /** PEM. */
  readonly ca: string | undefined
  readonly proxies: ProxyConfig
  /** Bytes of all copies together. */
  readonly maxBytes: number | undefined
  readonly bytesPerSecond: number | undefined
}

/** URLs of HTTP proxies by the scheme of what is asked, and the entries of `NO_PROXY`. */
export interface ProxyConfig {
  readonly http: string | undefined
  readonly https: string | undefined
  readonly without: readonly string[]
}

/** What a mirror is made of besides its settings. */
export interface MirrorParts {
  readonly credentials: MirrorConfig['credentials']
  /** PEM. */
  readonly ca: string | undefined
}

/** Makes a mirror of settings that come from elsewhere than the settings of this process. */
export type MirrorMaker = (prefix: string, settings: UpstreamSettings, parts: MirrorParts) => MirrorConfig

const DEFAULT_TTL_MS = 5 * 60_000

/** The mirrors of the settings; adds what is wrong with their files to `faults`. */
export function mirrorsOf(
  all: Readonly<Record<string, UpstreamSettings>>,
  env: Environment,
  cwd: string,
  faults: ConfigFault[],
): MirrorConfig[] {
  const proxies = Object.keys(all).length === 0 ? NO_PROXIES : proxiesOf(env, faults)
  return Object.entries(all).map(([prefix, settings]) => {
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
    const credentials = username === undefined || password === undefined ? undefined : { username, password }
    return mirrorMaker(proxies)(prefix, settings, { credentials, ca: read('ca') })
  })
}

/** Adds to settings of a mirror what is known of its upstream, and how this process reaches it. */
export function mirrorMaker(proxies: ProxyConfig): MirrorMaker {
  return (prefix, settings, { credentials, ca }) => {
    const { host } = new URL(settings.url)
    const known = knownUpstream(host)
    return {
      prefix,
      url: settings.url,
      credentials,
      allow: settings.allow ?? ['**'],
      deny: settings.deny ?? [],
      tagLives: (settings.tagTtls ?? []).map(({ tags, ttl }) => ({ tags, ttlMs: ttl })),
      defaultTtlMs: settings.tagTtl ?? DEFAULT_TTL_MS,
      offline: settings.offline ?? false,
      keepsDeleted: settings.keepDeletedTags ?? false,
      namespaces: namespacesOf(settings),
      hosts: settings.hosts ?? [],
      trustedHosts: settings.trustedHosts ?? [],
      contentHosts: known.contentHosts,
      defaultNamespace: known.defaultNamespace,
      allowPrivate: settings.allowPrivate ?? false,
      ca,
      proxies: settings.proxy === undefined ? proxies : { http: settings.proxy, https: settings.proxy, without: [] },
      maxBytes: settings.maxBytes,
      bytesPerSecond: settings.bandwidth,
    }
  }
}

const NO_PROXIES: ProxyConfig = { http: undefined, https: undefined, without: [] }

/** The proxies that the environment names, in capitals or not. */
export function proxiesOf(env: Environment, faults: ConfigFault[]): ProxyConfig {
  const proxy = (name: string): string | undefined => {
    const variable = env[name] ? name : name.toLowerCase()
    const value = env[variable]
    if (!value) return undefined
    // Everybody else takes one without a scheme.
    const url = URL.parse(value.includes('://') ? value : `http://${value}`)
    if (url !== null && /^https?:$/.test(url.protocol) && url.hostname !== '') return url.href
    faults.push({ path: variable, message: 'must be the URL of an HTTP proxy such as http://proxy.example:3128' })
    return undefined
  }
  const without = (env['NO_PROXY'] || env['no_proxy'] || '').split(/[,\s]+/).filter(entry => entry !== '')
  return { http: proxy('HTTP_PROXY'), https: proxy('HTTPS_PROXY'), without }
}
