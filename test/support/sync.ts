import { setTimeout as delay } from 'node:timers/promises'
import { administerOf } from './access.ts'
import type { TestServer } from './server.ts'

/** A run of a sync as the API tells it. */
export interface RunAnswer {
  readonly id: number
  readonly state: 'waiting' | 'running' | 'done' | 'failed' | 'stopped'
  readonly images: number
  readonly copied: number
  readonly upToDate: number
  readonly toCopy: number
  readonly skipped: number
  readonly failed: number
  readonly bytes: number
  readonly askedBy: string
  readonly error: string | null
}

/** What came of an image. */
export interface ItemAnswer {
  readonly repository: string
  readonly tag: string
  readonly target: string
  readonly digest: string | null
  readonly outcome: string | null
  readonly reason: string | null
  readonly manifests: number
  readonly blobs: number
  readonly bytes: number
}

/** The settings of syncs, as a server takes them. */
export function syncsOf(jobs: Readonly<Record<string, object>>): Readonly<Record<string, string>> {
  return { BERTH_SYNC_JOBS: JSON.stringify(jobs) }
}

/** Asks for a run; answers its id. */
export async function askForRun(server: TestServer, name: string, dryRun = false): Promise<number> {
  const administer = await administerOf(server)
  return Number((await administer('POST', `/syncs/${name}/runs`, { dryRun }))['id'])
}

/** A run as it is now. */
export async function runOf(server: TestServer, id: number): Promise<RunAnswer> {
  const administer = await administerOf(server)
  return (await administer('GET', `/sync-runs/${id}`)) as unknown as RunAnswer
}

/** Waits until a run is at its end. */
export async function ended(server: TestServer, id: number): Promise<RunAnswer> {
  for (;;) {
    const run = await runOf(server, id)
    if (run.state !== 'waiting' && run.state !== 'running') return run
    await delay(50)
  }
}

/** What came of each image of a run, by `repository:tag`. */
export async function itemsOf(server: TestServer, id: number): Promise<Readonly<Record<string, ItemAnswer>>> {
  const administer = await administerOf(server)
  const { items } = (await administer('GET', `/sync-runs/${id}/items?limit=1000`)) as unknown as {
    readonly items: readonly ItemAnswer[]
  }
  return Object.fromEntries(items.map(item => [`${item.repository}:${item.tag}`, item]))
}

/** Runs a sync to its end; answers what came of each image, and of all. */
export async function runSync(
  server: TestServer,
  name: string,
  dryRun = false,
): Promise<{ readonly run: RunAnswer; readonly items: Readonly<Record<string, ItemAnswer>> }> {
  const id = await askForRun(server, name, dryRun)
  const run = await ended(server, id)
  return { run, items: await itemsOf(server, id) }
}
