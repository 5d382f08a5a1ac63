import { z } from 'zod'
import type { Administration } from '../../access/administration.ts'
import { type Endpoint, endpoint, listEndpoint, pageQuery } from './endpoint.ts'
import { Time } from './schemas.ts'

const Outcome = z
  .enum(['copied', 'up-to-date', 'to-copy', 'skipped', 'failed'])
  .describe('to-copy: by a dry run, what a run would copy')

const Run = z.object({
  id: z.int(),
  sync: z.string(),
  dryRun: z.boolean(),
  state: z.enum(['waiting', 'running', 'done', 'failed', 'stopped']).describe('done: also where single images failed'),
  askedBy: z.string(),
  createdAt: Time,
  finishedAt: Time.nullable(),
  listed: z.boolean().describe('Whether all images are listed, so that the counts are of all'),
  images: z.int(),
  copied: z.int(),
  upToDate: z.int(),
  toCopy: z.int(),
  skipped: z.int(),
  failed: z.int(),
  bytes: z.int().describe('Bytes of blobs that were moved so far'),
  error: z.string().nullable().describe('Why the run as a whole could not go on'),
})

const Sync = z.object({
  name: z.string(),
  direction: z.enum(['pull', 'push']),
  url: z.string(),
  repositories: z.array(z.string()),
  schedule: z.string().nullable().describe('Five fields of cron'),
  timeZone: z.string(),
  nextRunAt: Time.nullable(),
  lastRun: Run.nullable(),
})

const Item = z.object({
  repository: z.string().describe('Its name at the source'),
  tag: z.string().describe('Empty: the repository as a whole'),
  target: z.string(),
  digest: z.string().nullable(),
  outcome: Outcome.nullable().describe('null: not yet'),
  reason: z.string().nullable(),
  manifests: z.int().describe('Manifests that were moved'),
  blobs: z.int().describe('Blobs that were moved'),
  bytes: z.int(),
})

/** Syncs with other registries and their runs. */
export function syncEndpoints(admin: Administration): Endpoint[] {
  return [
    listEndpoint({
      path: '/syncs',
      summary: 'The syncs of the settings, with their last run',
      item: Sync,
      page: ({ actor, query }) => admin.listSyncs(actor, query),
    }),
    endpoint({
      method: 'post',
      path: '/syncs/:name/runs',
      summary: 'Run a sync, or look what it would do; it is done in the background, one run at a time',
      body: z.strictObject({ dryRun: z.boolean().default(false) }),
      status: 201,
      answer: z.object({ id: z.int() }),
      handle: ({ actor, body, param }) => admin.startSync(actor, { sync: param('name'), ...body }),
    }),
    endpoint({
      method: 'delete',
      path: '/syncs/:name/run',
      summary: 'Stop the run of a sync that is under way; what was copied stays',
      handle: ({ actor, param }) => admin.stopSync(actor, param('name')),
    }),
    listEndpoint({
      path: '/sync-runs',
      summary: 'Runs of syncs, newest first',
      query: z.strictObject({ ...pageQuery.shape, sync: z.string().max(110).optional() }),
      item: Run,
      page: ({ actor, query }) => admin.listSyncRuns(actor, query.sync, query),
    }),
    endpoint({
      method: 'get',
      path: '/sync-runs/:id',
      summary: 'A run of a sync, and how far it is',
      answer: Run,
      handle: ({ actor, param }) => admin.getSyncRun(actor, param('id')),
    }),
    listEndpoint({
      path: '/sync-runs/:id/items',
      summary: 'What came of each image',
      query: z.strictObject({
        ...pageQuery.shape,
        last: z.string().max(400).default('').describe('The last entry of the page before'),
        outcome: Outcome.optional(),
      }),
      item: Item,
      page: ({ actor, query, param }) =>
        admin.listSyncItems(actor, { run: param('id'), outcome: query.outcome }, query),
    }),
  ]
}
