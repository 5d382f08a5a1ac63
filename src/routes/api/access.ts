import { z } from 'zod'
import type { Administration } from '../../access/administration.ts'
import type { GrantSubject } from '../../access/grant-admin.ts'
import { RegistryError } from '../../oci/errors.ts'
import { type Endpoint, endpoint, listEndpoint, pageQuery } from './endpoint.ts'
import * as schemas from './schemas.ts'

/** About whom a question is. @throws RegistryError INVALID where more than one is named. */
function askedOf(query: {
  readonly principal?: string | undefined
  readonly group?: string | undefined
  readonly everyone?: 'anonymous' | 'authenticated' | undefined
}): GrantSubject {
  const { principal, group, everyone } = query
  if ([principal, group, everyone].filter(one => one !== undefined).length > 1) {
    throw new RegistryError('INVALID', { message: 'name one of principal, group and everyone' })
  }
  if (principal !== undefined) return { kind: 'principal', name: principal }
  return group === undefined ? { kind: everyone ?? 'anonymous' } : { kind: 'group', name: group }
}

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
        principal: z.string().max(110).optional().describe('A user, robot or CI identity'),
        group: z.string().max(110).optional().describe('A group, instead of a principal'),
        everyone: z
          .enum(['anonymous', 'authenticated'], 'must be anonymous or authenticated')
          .optional()
          .describe('Everyone, or everyone who logged in, instead of a principal; anonymous where nobody is named'),
        action: schemas.OneAction,
        repository: z.string().max(300),
      }),
      answer: schemas.Decision,
      handle: async ({ actor, query }) => {
        const { action, repository } = query
        const { allowed, reason, grant } = await admin.explainAccess(actor, {
          subject: askedOf(query),
          action,
          repository,
        })
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
