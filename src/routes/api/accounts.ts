import { z } from 'zod'
import type { Administration } from '../../access/administration.ts'
import { type Endpoint, endpoint, listEndpoint } from './endpoint.ts'
import * as schemas from './schemas.ts'

/** Users and groups. */
export function accountEndpoints(admin: Administration): Endpoint[] {
  return [
    endpoint({
      method: 'post',
      path: '/users',
      summary: 'Add a user; without a password one is generated and shown this once',
      body: z.strictObject({ name: schemas.Name, password: z.string().max(1_024).optional() }),
      status: 201,
      answer: z.object({ name: z.string(), generatedPassword: schemas.Secret.optional() }),
      handle: ({ actor, body }) => {
        const { name, password } = body
        return admin.createUser(actor, password === undefined ? { name } : { name, password })
      },
    }),
    listEndpoint({
      path: '/users',
      summary: 'Users by name',
      item: schemas.Principal,
      page: ({ actor, query }) => admin.listUsers(actor, query),
    }),
    endpoint({
      method: 'patch',
      path: '/users/:name',
      summary: 'Disable a user, which ends its sessions, or enable it',
      body: z.strictObject({ disabled: z.boolean() }),
      handle: ({ actor, body, param }) => admin.setUserDisabled(actor, param('name'), body.disabled),
    }),
    endpoint({
      method: 'put',
      path: '/users/:name/password',
      summary: "Set a user's password, which ends its sessions; one's own by showing the current one",
      body: z.strictObject({ password: z.string().max(1_024), current: z.string().max(1_024).optional() }),
      handle: ({ actor, body, param }) => {
        const { password, current } = body
        const change = { name: param('name'), password }
        return admin.setUserPassword(actor, current === undefined ? change : { ...change, current })
      },
    }),
    endpoint({
      method: 'delete',
      path: '/users/:name',
      summary: 'Remove a user with its tokens and grants',
      handle: ({ actor, param }) => admin.deleteUser(actor, param('name')),
    }),
    endpoint({
      method: 'post',
      path: '/groups',
      summary: 'Add a group',
      body: z.strictObject({ name: schemas.Name }),
      status: 201,
      handle: ({ actor, body }) => admin.createGroup(actor, body.name),
    }),
    listEndpoint({
      path: '/groups',
      summary: 'Groups by name',
      item: z.object({ name: z.string(), createdAt: schemas.Time }),
      page: ({ actor, query }) => admin.listGroups(actor, query),
    }),
    endpoint({
      method: 'delete',
      path: '/groups/:name',
      summary: 'Remove a group with its grants',
      handle: ({ actor, param }) => admin.deleteGroup(actor, param('name')),
    }),
    listEndpoint({
      path: '/groups/:name/members',
      summary: 'Members of a group by name',
      item: z.object({ name: z.string(), kind: z.string() }),
      page: ({ actor, query, param }) => admin.listGroupMembers(actor, param('name'), query),
    }),
    endpoint({
      method: 'put',
      path: '/groups/:name/members/:member',
      summary: 'Put a user, robot or CI identity into a group',
      handle: ({ actor, param }) => admin.addGroupMember(actor, { group: param('name'), member: param('member') }),
    }),
    endpoint({
      method: 'delete',
      path: '/groups/:name/members/:member',
      summary: 'Take somebody out of a group',
      handle: ({ actor, param }) => admin.removeGroupMember(actor, { group: param('name'), member: param('member') }),
    }),
  ]
}
