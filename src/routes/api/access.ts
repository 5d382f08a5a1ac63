import { z } from 'zod'
import type { Administration } from '../../access/administration.ts'
import { ACTIONS } from '../../auth/identity.ts'
import { type Endpoint, endpoint, listEndpoint, pageQuery } from './endpoint.ts'
import * as schemas from './schemas.ts'

/** Grants, what they amount to, signing keys and the audit. */
export function accessEndpoints(admin: Administration): Endpoint[] {
  return [
    endpoint({
      method: 'post',
      path: '/grants',
      summary: 'Grant actions on repositories; a grant of the same subject and pattern is replaced',
      body: z.strictObject({ subject: schemas.Subject, pattern: schemas.Pattern, actions: schemas.Actions }),
      status: 201,
      answer: z.object({ id: z.int() }),
      handle: async ({ actor, body }) => ({ id: await admin.addGrant(actor, body) }),
    }),
    listEndpoint({
      path: '/grants',
      summary: 'Grants in the order they were made',
      query: z.strictObject({
        ...pageQuery.shape,
        principal: z.string().max(110).optional().describe('Only those to this user, robot or CI identity'),
        group: z.string().max(110).optional().describe('Only those to this group'),
      }),
      item: schemas.Grant,
      page: ({ actor, query }) => {
        const { principal, group } = query
        const of = { ...(principal === undefined ? {} : { principal }), ...(group === undefined ? {} : { group }) }
        return admin.listGrants(actor, of, query)
      },
    }),
    endpoint({
      method: 'delete',
      path: '/grants/:id',
      summary: 'Take a grant back',
      handle: ({ actor, param }) => admin.removeGrant(actor, param('id')),
    }),
    endpoint({
      method: 'get',
      path: '/explain',
      summary: 'Whether somebody may do an action on a repository, and which grant decides',
      query: z.strictObject({
        principal: z.string().max(110).optional().describe('Everyone, without it'),
        action: z.enum(ACTIONS),
        repository: z.string().max(300),
      }),
      answer: schemas.Decision,
      handle: async ({ actor, query }) => {
        const { principal, action, repository } = query
        const question = { action, repository, ...(principal === undefined ? {} : { principal }) }
        const { allowed, reason, grant } = await admin.explainAccess(actor, question)
        if (grant === undefined) return { allowed, reason }
        const { id, subject: kind, subjectName: name, pattern, actions } = grant
        return {
          allowed,
          reason,
          grant: { id, subject: name === undefined ? { kind } : { kind, name }, pattern, actions },
        }
      },
    }),
    endpoint({
      method: 'get',
      path: '/keys',
      summary: 'The keys that sign tokens',
      answer: z.object({ items: z.array(schemas.Key) }),
      handle: async ({ actor }) => ({ items: await admin.listKeys(actor) }),
    }),
    endpoint({
      method: 'post',
      path: '/keys/rotation',
      summary: 'Rotate the signing keys now',
      body: z.strictObject({
        distrust: z.boolean().default(false).describe('End every token signed until now: for a key that leaked'),
      }),
      handle: ({ actor, body }) => admin.rotateKeys(actor, body.distrust),
    }),
    listEndpoint({
      path: '/audit',
      summary: 'What was done and refused, newest first',
      query: z.strictObject({
        ...pageQuery.shape,
        actor: z.string().max(255).optional(),
        kind: z.string().max(100).optional(),
      }),
      item: schemas.AuditEntry,
      page: ({ actor, query }) => {
        const of = {
          ...(query.actor === undefined ? {} : { actor: query.actor }),
          ...(query.kind === undefined ? {} : { kind: query.kind }),
        }
        return admin.listAudit(actor, of, query)
      },
    }),
  ]
}
