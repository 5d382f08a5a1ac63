import { z } from 'zod'
import type { Administration } from '../../access/administration.ts'
import { type Endpoint, endpoint, listEndpoint, pageQuery } from './endpoint.ts'
import * as schemas from './retention-schemas.ts'

/** Retention policies, their plans and runs, and how often tags are pulled. */
export function retentionEndpoints(admin: Administration): Endpoint[] {
  return [
    endpoint({
      method: 'put',
      path: '/retention-policies/:name',
      summary: 'Add a retention policy, or put it in the place of the one of its name',
      body: schemas.Policy,
      answer: schemas.PolicyInfo,
      handle: ({ actor, body, param }) => admin.putRetentionPolicy(actor, { name: param('name'), ...body }),
    }),
    listEndpoint({
      path: '/retention-policies',
      summary: 'Retention policies by name',
      item: schemas.PolicyInfo,
      page: ({ actor, query }) => admin.listRetentionPolicies(actor, query),
    }),
    endpoint({
      method: 'delete',
      path: '/retention-policies/:name',
      summary: 'Remove a retention policy; what its runs did stays to be seen',
      handle: ({ actor, param }) => admin.deleteRetentionPolicy(actor, param('name')),
    }),
    endpoint({
      method: 'post',
      path: '/retention-policies/:name/runs',
      summary: 'Plan what a policy removes, or remove it; it is done in the background',
      body: z.strictObject({
        goal: z.enum(['plan', 'run']),
        confirmed: z.boolean().default(false).describe("Also where more goes than the policy's share"),
      }),
      status: 201,
      answer: z.object({ id: z.int() }),
      handle: ({ actor, body, param }) => admin.startRetention(actor, { policy: param('name'), ...body }),
    }),
    listEndpoint({
      path: '/retention-runs',
      summary: 'Plans and runs, newest first',
      query: z.strictObject({ ...pageQuery.shape, policy: z.string().max(110).optional() }),
      item: schemas.Run,
      page: ({ actor, query }) => admin.listRetentionRuns(actor, query.policy, query),
    }),
    endpoint({
      method: 'get',
      path: '/retention-runs/:id',
      summary: 'A plan or run',
      answer: schemas.Run,
      handle: ({ actor, param }) => admin.getRetentionRun(actor, param('id')),
    }),
    endpoint({
      method: 'post',
      path: '/retention-runs/:id/confirmation',
      summary: 'Let a run that asks go on: what its plan says goes, and still would, is removed',
      handle: ({ actor, param }) => admin.confirmRetention(actor, param('id')),
    }),
    listEndpoint({
      path: '/retention-runs/:id/repositories',
      summary: 'The repositories that a run looked at',
      item: schemas.RunRepository,
      page: ({ actor, query, param }) => admin.listRetentionRepositories(actor, param('id'), query),
    }),
    listEndpoint({
      path: '/retention-runs/:id/items',
      summary: 'What becomes of each tag, and why',
      query: z.strictObject({
        ...pageQuery.shape,
        all: z.enum(['true', 'false']).default('false').describe('Of a plan: also the tags that stay'),
      }),
      item: schemas.Item,
      page: ({ actor, query, param }) =>
        admin.listRetentionItems(actor, { run: param('id'), all: query.all === 'true' }, query),
    }),
    listEndpoint({
      path: '/pulls',
      summary: 'How often the tags of a repository were pulled, and when last',
      query: z.strictObject({ ...pageQuery.shape, repository: z.string().max(300) }),
      item: schemas.TagPulls,
      page: ({ actor, query }) => admin.listPulls(actor, query.repository, query),
    }),
  ]
}
