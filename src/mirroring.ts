import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { matchesPattern } from './oci/repository-pattern.ts'
import type { Config } from './config.ts'
import type { Job } from './jobs/schedule.ts'
import type { Log } from './log.ts'
import type { Addressing } from './middleware/addressing.ts'
import type { MirrorConfig } from './mirror-config.ts'
import { BlobMirror } from './mirror/blobs.ts'
import { ManifestMirror } from './mirror/manifests.ts'
import { Mirror } from './mirror/mirror.ts'
import { createMirroredRegistry } from './mirror/mirrored-registry.ts'
import type { UpstreamOptions } from './mirror/upstream.ts'
import { parseName } from './oci/name.ts'
import type { RegistryContext } from './registry/context.ts'
import { MirroredTags } from './registry/mirrored-tags.ts'
import { type Registry, createRegistry } from './registry/registry.ts'

/** The registry with its mirrors. */
export interface Mirroring {
  readonly registry: Registry
  /** Absent without mirrors. */
  readonly addressing?: Addressing
  readonly jobs: readonly Job[]
}

const HOUR_MS = 60 * 60_000
const RETRIES = 5
/** A fetch nobody waits for any more goes on where half of it has come. */
const GO_ON_SHARE = 0.5
const FOLLOW_MS = 5_000

/** Fills the repositories of mirrors from their upstreams; without mirrors the registry is `own` itself. */
export async function openMirrors(
  config: Config,
  context: RegistryContext,
  own: Registry,
  log: Log,
  opened: AsyncDisposableStack,
): Promise<Mirroring> {
  const { upstreams, keepMs, patienceMs, blobMaxBytes } = config.mirror
  if (upstreams.length === 0) return { registry: own, jobs: [] }
  const spoolDirectory = join(config.data.dir, 'spool')
  await mkdir(spoolDirectory, { recursive: true })
  const mirrors = upstreams.map(upstream => openMirror(upstream, patienceMs, config.registry.manifestMaxBytes))
  opened.defer(async () => {
    await Promise.all(mirrors.map(mirror => mirror.upstream.close()))
  })
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
  opened.defer(() => blobs.close())
  const manifests = new ManifestMirror({
    copies,
    tags,
    onStale: ({ options }, err) => log.warn({ mirror: options.prefix, err }, 'served what may be out of date'),
  })
  return {
    registry: createMirroredRegistry({ mirrors, own, copies, manifests, blobs }),
    addressing: {
      namespaces: new Map(upstreams.flatMap(({ namespaces, prefix }) => namespaces.map(name => [name, prefix]))),
      hosts: new Map(upstreams.flatMap(({ hosts, prefix }) => hosts.map(host => [host.toLowerCase(), prefix]))),
    },
    jobs: [
      {
        name: 'expire mirrored tags',
        everyMs: HOUR_MS,
        run: async signal => {
          await tags.expire(keepMs, name => mirrors.some(mirror => mirror.has(name)), signal)
        },
      },
    ],
  }
}

function openMirror(config: MirrorConfig, patienceMs: number, documentMaxBytes: number): Mirror {
  const { allow, deny } = config
  const matches = (patterns: readonly string[], repository: string): boolean =>
    patterns.some(pattern => matchesPattern(pattern, repository))
  return new Mirror({
    prefix: parseName(config.prefix),
    upstream: upstreamOptions(config, documentMaxBytes),
    defaultNamespace: config.defaultNamespace,
    allows: repository => matches(allow, repository) && !matches(deny, repository),
    tagLives: config.tagLives,
    defaultTtlMs: config.defaultTtlMs,
    offline: config.offline,
    keepsDeleted: config.keepsDeleted,
    patienceMs,
  })
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
    ...(config.ca === undefined ? {} : { ca: [config.ca] }),
    ...(config.proxy === undefined ? {} : { proxy: config.proxy }),
  }
}
