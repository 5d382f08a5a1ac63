import type { MirrorControl, MirrorTestStep, MirrorView } from './access/actor.ts'
import type { StoredMirror } from './access/mirror-admin.ts'
import type { Log } from './log.ts'
import type { Database } from './metadata/database.ts'
import { type MirrorRow, listMirrors, mirrorsVersion } from './metadata/mirrors.ts'
import type { MirrorMetrics } from './metrics/mirror-metrics.ts'
import type { Addressing } from './middleware/addressing.ts'
import type { MirrorConfig, MirrorMaker } from './mirror-config.ts'
import type { UpstreamSettings } from './mirror-settings.ts'
import type { Mirror } from './mirror/mirror.ts'
import { MirrorSet } from './mirror/mirror-set.ts'
import { MirrorStats } from './mirror/stats.ts'
import { within } from './mirror/within.ts'

/** What the mirrors of a process are made of. */
export interface FleetOptions {
  readonly db: Database
  readonly log: Log
  readonly metrics: MirrorMetrics
  /** Those of the settings. They are stronger than those of the index. */
  readonly upstreams: readonly MirrorConfig[]
  readonly make: MirrorMaker
  readonly open: (config: MirrorConfig, stats: MirrorStats) => Mirror
  /** Writes what was counted. */
  readonly flush: () => Promise<void>
}

/** A mirror at work. */
export interface Running {
  readonly config: MirrorConfig
  readonly mirror: Mirror
  /** Which state of its row it was made of; undefined: of the settings. */
  readonly version: string | undefined
}

/** Requests of a mirror that was changed or removed go on for so long. */
const RETIRE_MS = 60 * 60_000
const TEST_MS = 20_000

/** The mirrors of this process: those of its settings, and those of the index as they come, change and go. */
export class MirrorFleet implements MirrorControl {
  readonly set = new MirrorSet()
  readonly #options: FleetOptions
  readonly #stats = new Map<string, MirrorStats>()
  readonly #fixed: readonly Running[]
  readonly #retired = new Set<Mirror>()
  #running: readonly Running[] = []
  #version: string | undefined
  #refreshing: Promise<void> = Promise.resolve()

  constructor(options: FleetOptions) {
    this.#options = options
    this.#fixed = options.upstreams.map(config => this.#open(config, undefined))
    this.#use(this.#fixed)
    options.metrics.watch(() =>
      this.#running.map(({ config, mirror }) => ({
        prefix: config.prefix,
        totals: mirror.stats.totals,
        rate: mirror.stats.rate,
        isLeftAlone: mirror.health.paused !== undefined,
        maxBytes: config.maxBytes,
      })),
    )
  }

  /** Those at work now, by prefix. */
  get running(): readonly Running[] {
    return this.#running
  }

  /** What was counted of each, also of those that are gone. */
  get counted(): readonly { readonly prefix: string; readonly stats: MirrorStats }[] {
    return [...this.#stats].map(([prefix, stats]) => ({ prefix, stats }))
  }

  /** How requests find those that there are at the moment. */
  get addressing(): Addressing {
    const of = (prefix: string | undefined): MirrorConfig | undefined =>
      this.#running.find(({ config }) => config.prefix === prefix)?.config
    return {
      hasMirrors: () => this.#running.length > 0,
      byNamespace: namespace => of(this.set.namespaces.get(namespace)),
      byHost: host => of(this.set.hosts.get(host)),
      byName: name => this.#running.find(({ config }) => name.startsWith(`${config.prefix}/`))?.config,
    }
  }

  /** Looks whether the mirrors of the index have changed. */
  async refresh(): Promise<void> {
    this.#refreshing = this.#refreshing.catch(() => undefined).then(() => this.#refresh())
    await this.#refreshing
  }

  async list(): Promise<readonly MirrorView[]> {
    await this.refresh()
    return this.#running.map(viewOf)
  }

  async flush(): Promise<void> {
    await this.#options.flush()
  }

  async test(prefix: string, repository: string | undefined): Promise<readonly MirrorTestStep[] | undefined> {
    await this.refresh()
    const upstream = this.set.get(prefix)?.upstream
    if (upstream === undefined) return undefined
    try {
      return await within(upstream.host, TEST_MS, signal => upstream.probe(repository, signal))
    } catch (error) {
      return [{ step: 'reach', ok: false, message: error instanceof Error ? error.message : String(error) }]
    }
  }

  /** Closes the connections of all. */
  async close(): Promise<void> {
    const mirrors = new Set([...this.#running.map(({ mirror }) => mirror), ...this.#retired])
    await Promise.all([...mirrors].map(mirror => mirror.upstream.close()))
  }

  async #refresh(): Promise<void> {
    const { db, log } = this.#options
    // Before the rows: what changes in between is seen the next time.
    const version = await mirrorsVersion(db)
    if (version === this.#version) return
    const rows = version === '' ? [] : await listMirrors(db)
    const before = new Map(this.#running.map(running => [`${running.config.prefix} ${running.version}`, running]))
    const added = rows.flatMap(row => {
      if (this.#fixed.some(({ config }) => overlap(config.prefix, row.prefix))) {
        log.warn({ mirror: row.prefix }, 'a mirror of the settings stands in the way of one of the index')
        return []
      }
      const known = before.get(`${row.prefix} ${versionOf(row)}`)
      if (known !== undefined) return [known]
      try {
        return [this.#open(this.#configOf(row), versionOf(row))]
      } catch (err) {
        log.error({ mirror: row.prefix, err }, 'a mirror of the index cannot be used')
        return []
      }
    })
    this.#use([...this.#fixed, ...added])
    this.#version = version
  }

  #configOf(row: MirrorRow): MirrorConfig {
    const { tagTtlSeconds, tagTtls, bytesPerSecond, ca, ...same } = row.settings as StoredMirror
    const settings: UpstreamSettings = {
      ...same,
      ...(tagTtlSeconds === undefined ? {} : { tagTtl: tagTtlSeconds * 1000 }),
      ...(tagTtls === undefined
        ? {}
        : { tagTtls: tagTtls.map(({ tags, ttlSeconds }) => ({ tags, ttl: ttlSeconds * 1000 })) }),
      ...(bytesPerSecond === undefined ? {} : { bandwidth: bytesPerSecond }),
    }
    const { username, password } = row
    const credentials = username === null || password === null ? undefined : { username, password }
    return this.#options.make(row.prefix, settings, { credentials, ca })
  }

  #open(config: MirrorConfig, version: string | undefined): Running {
    return { config, version, mirror: this.#options.open(config, this.#statsOf(config.prefix)) }
  }

  #statsOf(prefix: string): MirrorStats {
    const { metrics } = this.#options
    const stats = this.#stats.get(prefix) ?? new MirrorStats(seconds => metrics.answered(prefix, seconds))
    this.#stats.set(prefix, stats)
    return stats
  }

  #use(running: readonly Running[]): void {
    const stay = new Set(running.map(({ mirror }) => mirror))
    for (const { mirror } of this.#running) {
      if (stay.has(mirror)) continue
      this.#retired.add(mirror)
      setTimeout(() => {
        this.#retired.delete(mirror)
        void mirror.upstream.close()
      }, RETIRE_MS).unref()
    }
    this.#running = running.toSorted((a, b) => (a.config.prefix < b.config.prefix ? -1 : 1))
    this.set.replace(
      running.map(({ mirror, config }) => ({
        mirror,
        namespaces: config.namespaces.map(name => name.toLowerCase()),
        hosts: config.hosts.map(host => host.toLowerCase()),
      })),
    )
  }
}

function versionOf({ id, revision }: MirrorRow): string {
  return `${id}:${revision}`
}

function overlap(one: string, other: string): boolean {
  return one === other || one.startsWith(`${other}/`) || other.startsWith(`${one}/`)
}

function viewOf({ config, mirror, version }: Running): MirrorView {
  return {
    prefix: config.prefix,
    source: version === undefined ? 'settings' : 'api',
    url: config.url,
    username: config.credentials?.username ?? null,
    allow: config.allow,
    deny: config.deny,
    tagTtlSeconds: config.defaultTtlMs / 1000,
    tagTtls: config.tagLives.map(({ tags, ttlMs }) => ({ tags, ttlSeconds: ttlMs / 1000 })),
    offline: config.offline,
    keepDeletedTags: config.keepsDeleted,
    namespaces: config.namespaces,
    hosts: config.hosts,
    trustedHosts: config.trustedHosts,
    allowPrivate: config.allowPrivate,
    maxBytes: config.maxBytes ?? null,
    bytesPerSecond: config.bytesPerSecond ?? null,
    leftAlone: mirror.health.paused?.message ?? null,
  }
}
