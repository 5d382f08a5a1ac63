import type { Config } from './config.ts'
import type { Job } from './jobs/schedule.ts'
import type { Log } from './log.ts'
import type { Database } from './metadata/database.ts'
import { Upstream } from './mirror/upstream.ts'
import { upstreamOptions } from './mirroring.ts'
import type { Registry } from './registry/registry.ts'
import type { SyncConfig } from './sync-config.ts'
import { LocalSource, LocalTarget } from './sync/local.ts'
import { Patience } from './sync/patience.ts'
import { RemoteTarget } from './sync/remote-target.ts'
import { Remote, RemoteSource } from './sync/remote.ts'
import { forgetSyncRuns, runSync } from './sync/sync.ts'
import type { Sides } from './sync/work.ts'

/** What syncs work with. */
export interface SyncingContext {
  readonly config: Config
  readonly db: Database
  /** This registry without its mirrors: what is pushed elsewhere is what is here. */
  readonly own: Registry
  /** This registry with its mirrors, into which nothing can be pulled. */
  readonly registry: Registry
  readonly log: Log
}

const MINUTE_MS = 60_000
/** Often: whoever asks for a run waits for it. */
const LOOK_MS = 2_000
/** What is kept of runs, for those who ask what came of an image. */
const RUNS_KEPT_MS = 90 * 24 * 60 * MINUTE_MS

/** The background work of syncs. Each has a job of its own, so that a long one holds up no other. */
export function syncJobs(context: SyncingContext): Job[] {
  const { config, db, log } = context
  if (config.syncs.length === 0) return []
  return [
    ...config.syncs.map(sync => ({
      name: `sync ${sync.name}`,
      everyMs: LOOK_MS,
      run: async (signal: AbortSignal): Promise<void> => {
        const onEnd = (run: number, error: string | undefined): void => {
          if (error === undefined) log.info({ sync: sync.name, run }, 'sync is over')
          else log.warn({ sync: sync.name, run, error }, 'sync failed')
        }
        await runSync({ db, sync, open: ended => openSides(context, sync, ended), onEnd }, signal)
      },
    })),
    {
      name: 'forget sync runs',
      everyMs: 60 * MINUTE_MS,
      run: signal => forgetSyncRuns(db, RUNS_KEPT_MS, signal),
    },
  ]
}

function openSides({ config, db, own, registry }: SyncingContext, sync: SyncConfig, signal: AbortSignal): Sides {
  const isPull = sync.direction === 'pull'
  const { manifestMaxBytes: documentMaxBytes, requireBlobs } = config.registry
  const upstream = new Upstream({ ...upstreamOptions(sync.remote, documentMaxBytes), pushes: !isPull })
  const patience = new Patience(signal)
  const remote = new Remote(upstream, patience, signal)
  const local = { db, patience, signal, principal: `sync:${sync.name}` }
  const { addPrefix } = sync
  // An upstream's word must not give away what lies elsewhere.
  const siblings = addPrefix === undefined ? undefined : `^${addPrefix.replaceAll('.', String.raw`\.`)}/`
  return {
    source: isPull ? new RemoteSource(remote) : new LocalSource({ ...local, registry: own }),
    target: isPull
      ? new LocalTarget({ ...local, registry, mayLackBlobs: !requireBlobs, siblings })
      : new RemoteTarget(remote),
    [Symbol.asyncDispose]: () => upstream.close(),
  }
}
