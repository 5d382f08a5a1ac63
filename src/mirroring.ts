import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { matchesPattern, patternRegex } from './oci/repository-pattern.ts'
import type { MirrorControl } from './access/actor.ts'
import type { Config } from './config.ts'
import type { Job } from './jobs/schedule.ts'
import type { Log } from './log.ts'
import type { Database } from './metadata/database.ts'
import type { MirrorMetrics } from './metrics/mirror-metrics.ts'
import type { Addressing } from './middleware/addressing.ts'
import type { MirrorConfig } from './mirror-config.ts'
import { MirrorFleet } from './mirror-fleet.ts'
import { mirrorJobs, writeFigures } from './mirror-jobs.ts'
import type { Sharing } from './mirror/blob-source.ts'
import { BlobMirror } from './mirror/blobs.ts'
import { ManifestMirror } from './mirror/manifests.ts'
import { Mirror } from './mirror/mirror.ts'
import { createMirroredRegistry } from './mirror/mirrored-registry.ts'
import { Peers } from './mirror/peers.ts'
import { identityOf } from './mirror/shared-directory.ts'
import type { SharedFetches } from './mirror/shared-fetches.ts'
import { removeLeftovers } from './mirror/spool.ts'
import type { MirrorStats } from './mirror/stats.ts'
import type { UpstreamOptions } from './mirror/upstream.ts'
import { parseName } from './oci/name.ts'
import type { RegistryContext, VisibleNames } from './registry/context.ts'
import { FetchLeases } from './registry/fetch-leases.ts'
import { MirroredUses } from './registry/mirrored-uses.ts'
import { MirroredTags } from './registry/mirrored-tags.ts'
import { type Registry, createRegistry } from './registry/registry.ts'

/** The registry with its mirrors. */
export interface Mirroring {
  readonly registry: Registry
  readonly addressing: Addressing
  readonly control: MirrorControl
  /** What other processes may follow; absent where there are none. */
  readonly fetches?: SharedFetches
  readonly jobs: readonly Job[]
}

const HOUR_MS = 60 * 60_000
const RETRIES = 5
const FOLLOW_MS = 5_000
const PACE = { bytes: 32 * 1024, ms: 30_000 }
const MINUTE_MS = 60_000
/** A file that nobody has written to for this long, and that no fetch names, is a dead process's. */
const LEFTOVER_MS = HOUR_MS

/**
 * Fills the repositories of mirrors from their upstreams. Other processes reach this one at `internalUrl()`, which is asked
 * only once it listens.
 */
export async function openMirrors(
  config: Config,
  context: RegistryContext,
  own: Registry,
  internalUrl: () => string | undefined,
  metrics: MirrorMetrics,
  log: Log,
  opened: AsyncDisposableStack,
): Promise<Mirroring> {
  const { upstreams, keepMs, patienceMs, blobMaxBytes, maxFetches, finishShare, spareMs, make } = config.mirror
  const { db } = context
  const spoolDirectory = join(config.data.dir, 'spool')
  await mkdir(spoolDirectory, { recursive: true })
  const uses = new MirroredUses(db)
  const fleet = new MirrorFleet({
    db,
    log,
    metrics,
    upstreams,
    make,
    open: (upstream, stats) => openMirror(upstream, patienceMs, config.registry.manifestMaxBytes, stats),
    async flush() {
      await uses.write()
      await writeFigures(db, fleet.counted)
    },
  })
  opened.defer(() => fleet.close())
  await fleet.refresh()
  const mirrors = fleet.set
  // What is asked for again within half of the time to keep is kept for all of it, and what came in part is whole in the end.
  const lifetimes = { ...context.lifetimes, leaseMs: keepMs, untaggedRetentionMs: keepMs }
  const kept = { ...context, lifetimes, requireBlobs: false, requireChildren: false }
  const copies = createRegistry(kept)
  const tags = new MirroredTags(kept)
  const shared = await openSharing(config, context.db, spoolDirectory, internalUrl, opened)
  const blobs = new BlobMirror({
    copies,
    spoolDirectory,
    maxBytes: blobMaxBytes,
    goOnShare: finishShare,
    patienceMs: FOLLOW_MS,
    retries: RETRIES,
    pace: PACE,
    maxFetches,
    ...(shared === undefined ? {} : { sharing: shared.sharing }),
    onFailure: ({ options }, digest, err) => log.warn({ mirror: options.prefix, digest, err }, 'blob was not mirrored'),
  })
  opened.defer(() => fleet.flush().catch((err: unknown) => log.warn({ err }, 'what mirrors did was not written')))
  opened.defer(() => blobs.close())
  const manifests = new ManifestMirror({
    copies,
    tags,
    onStale: ({ options }, err) => log.warn({ mirror: options.prefix, err }, 'served what may be out of date'),
  })
  return {
    registry: createMirroredRegistry({ mirrors, own, copies, manifests, blobs, uses }),
    addressing: fleet.addressing,
    control: fleet,
    ...(shared === undefined ? {} : { fetches: blobs.shared }),
    jobs: [
      ...(shared?.jobs ?? []),
      ...mirrorJobs({ context: kept, fleet, uses, metrics, log, keepMs, spareMs }),
      {
        name: 'expire mirrored tags',
        everyMs: HOUR_MS,
        run: async signal => {
          await tags.expire(keepMs, name => mirrors.find(name) !== undefined, signal)
        },
      },
    ],
  }
}

/** What processes share fetches by: their internal addresses, or files in a directory that they may have in common. */
async function openSharing(
  config: Config,
  db: Database,
  directory: string,
  internalUrl: () => string | undefined,
  opened: AsyncDisposableStack,
): Promise<{ readonly sharing: Sharing; readonly jobs: readonly Job[] } | undefined> {
  // The embedded index has one process.
  if (db.driver === 'embedded') return undefined
  const identity = await identityOf(directory)
  const named = config.cluster.internalUrl === undefined ? identity : undefined
  const leases = new FetchLeases(db, () => ({ address: internalUrl(), directory: named }))
  const peers = new Peers()
  opened.defer(() => peers.close())
  const clean: Job = {
    name: 'clean the spool of mirrors',
    everyMs: MINUTE_MS,
    run: async () => await removeLeftovers(directory, await leases.clean(identity), LEFTOVER_MS),
  }
  return { sharing: { leases, peers, directory: named }, jobs: [clean] }
}

function openMirror(config: MirrorConfig, patienceMs: number, documentMaxBytes: number, stats: MirrorStats): Mirror {
  const { allow, deny } = config
  const matches = (patterns: readonly string[], repository: string): boolean =>
    patterns.some(pattern => matchesPattern(pattern, repository))
  return new Mirror({
    prefix: parseName(config.prefix),
    upstream: upstreamOptions(config, documentMaxBytes),
    defaultNamespace: config.defaultNamespace,
    allows: repository => matches(allow, repository) && !matches(deny, repository),
    allowedNames: allowedNames(config),
    tagLives: config.tagLives,
    defaultTtlMs: config.defaultTtlMs,
    offline: config.offline,
    keepsDeleted: config.keepsDeleted,
    patienceMs,
    stats,
  })
}

/** Of the names of all repositories those that are not of the mirror, or that it may fetch. */
function allowedNames({ prefix, allow, deny }: MirrorConfig): VisibleNames {
  const here = (patterns: readonly string[]): string[] => patterns.map(pattern => patternRegex(`${prefix}/${pattern}`))
  const others = `^(?!${prefix.replaceAll('.', '\\.')}/)`
  const denied = here(deny).map(regex => regex.slice(1))
  return [[others, ...here(allow)], ...(denied.length === 0 ? [] : [[`^(?!${denied.join('|')})`]])]
}

/** How another registry is reached, as its settings say. */
export function upstreamOptions(config: MirrorConfig, documentMaxBytes: number): UpstreamOptions {
  return {
    url: new URL(config.url),
    credentials: config.credentials,
    trustedHosts: config.trustedHosts,
    contentHosts: config.contentHosts,
    documentMaxBytes,
    allowPrivate: config.allowPrivate,
    bytesPerSecond: config.bytesPerSecond,
    ...(config.ca === undefined ? {} : { ca: [config.ca] }),
    proxies: config.proxies,
  }
}
