import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { matchesPattern } from './oci/repository-pattern.ts'
import type { MirrorControl } from './access/actor.ts'
import type { Config } from './config.ts'
import type { Job } from './jobs/schedule.ts'
import type { Log } from './log.ts'
import type { MirrorMetrics } from './metrics/mirror-metrics.ts'
import type { Addressing } from './middleware/addressing.ts'
import type { MirrorConfig } from './mirror-config.ts'
import { MirrorFleet } from './mirror-fleet.ts'
import { mirrorJobs, writeFigures } from './mirror-jobs.ts'
import { BlobMirror } from './mirror/blobs.ts'
import { ManifestMirror } from './mirror/manifests.ts'
import { Mirror } from './mirror/mirror.ts'
import { createMirroredRegistry } from './mirror/mirrored-registry.ts'
import type { MirrorStats } from './mirror/stats.ts'
import { parseName } from './oci/name.ts'
import type { RegistryContext } from './registry/context.ts'
import { MirroredUses } from './registry/mirrored-uses.ts'
import { MirroredTags } from './registry/mirrored-tags.ts'
import { type Registry, createRegistry } from './registry/registry.ts'

/** The registry with its mirrors. */
export interface Mirroring {
  readonly registry: Registry
  readonly addressing: Addressing
  readonly control: MirrorControl
  readonly jobs: readonly Job[]
}

const HOUR_MS = 60 * 60_000
const RETRIES = 5
/** A fetch nobody waits for any more goes on where half of it has come. */
const GO_ON_SHARE = 0.5
const FOLLOW_MS = 5_000

/** Fills the repositories of mirrors from their upstreams. */
export async function openMirrors(
  config: Config,
  context: RegistryContext,
  own: Registry,
  metrics: MirrorMetrics,
  log: Log,
  opened: AsyncDisposableStack,
): Promise<Mirroring> {
  const { upstreams, keepMs, patienceMs, blobMaxBytes, spareMs, make } = config.mirror
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
  // What is asked for again within the time to keep is kept, and what came in part is whole in the end.
  const lifetimes = { ...context.lifetimes, leaseMs: keepMs, untaggedRetentionMs: keepMs }
  const kept = { ...context, lifetimes, requireBlobs: false, requireChildren: false }
  const copies = createRegistry(kept)
  const tags = new MirroredTags(kept)
  const blobs = new BlobMirror({
    copies,
    spoolDirectory,
    maxBytes: blobMaxBytes,
    goOnShare: GO_ON_SHARE,
    patienceMs: FOLLOW_MS,
    retries: RETRIES,
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
    jobs: [
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

function openMirror(config: MirrorConfig, patienceMs: number, documentMaxBytes: number, stats: MirrorStats): Mirror {
  const { allow, deny } = config
  const matches = (patterns: readonly string[], repository: string): boolean =>
    patterns.some(pattern => matchesPattern(pattern, repository))
  return new Mirror({
    prefix: parseName(config.prefix),
    upstream: {
      url: new URL(config.url),
      credentials: config.credentials,
      trustedHosts: config.trustedHosts,
      contentHosts: config.contentHosts,
      documentMaxBytes,
      allowPrivate: config.allowPrivate,
      bytesPerSecond: config.bytesPerSecond,
      ...(config.ca === undefined ? {} : { ca: [config.ca] }),
      proxies: config.proxies,
    },
    defaultNamespace: config.defaultNamespace,
    allows: repository => matches(allow, repository) && !matches(deny, repository),
    tagLives: config.tagLives,
    defaultTtlMs: config.defaultTtlMs,
    offline: config.offline,
    keepsDeleted: config.keepsDeleted,
    patienceMs,
    stats,
  })
}
