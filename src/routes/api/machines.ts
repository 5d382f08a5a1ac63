import { z } from 'zod'
import type { Administration } from '../../access/administration.ts'
import { type Endpoint, endpoint, listEndpoint, pageQuery } from './endpoint.ts'
import * as schemas from './schemas.ts'

const ofUser = z.strictObject({ user: schemas.Name.optional().describe('Whose; your own without it') })
const rotation = z.strictObject({ overlapSeconds: schemas.Overlap })
const withSecret = z.object({ secret: schemas.Secret })

function own(user: string | undefined): { user?: string } {
  return user === undefined ? {} : { user }
}

/** Robots, personal access tokens and trust in CI identities. */
export function machineEndpoints(admin: Administration): Endpoint[] {
  return [
    endpoint({
      method: 'post',
      path: '/robots',
      summary: 'Make a robot account with what it may',
      body: z.strictObject({
        name: schemas.Name,
        grants: schemas.PatternActionsList,
        expiresAt: schemas.Time.optional(),
      }),
      status: 201,
      answer: z.object({ name: z.string(), secret: schemas.Secret }),
      handle: ({ actor, body }) => {
        const { name, grants, expiresAt } = body
        return admin.createRobot(actor, {
          name,
          grants,
          ...(expiresAt === undefined ? {} : { expiresAt: new Date(expiresAt) }),
        })
      },
    }),
    listEndpoint({
      path: '/robots',
      summary: 'Robots by name',
      item: schemas.Principal,
      page: ({ actor, query }) => admin.listRobots(actor, query),
    }),
    endpoint({
      method: 'post',
      path: '/robots/:name/secrets',
      summary: 'Give a robot a new secret; the former one stays good for a while',
      body: rotation,
      status: 201,
      answer: z.object({ name: z.string(), secret: schemas.Secret }),
      handle: ({ actor, body, param }) =>
        admin.rotateRobot(actor, { name: param('name'), overlapMs: body.overlapSeconds * 1000 }),
    }),
    endpoint({
      method: 'patch',
      path: '/robots/:name',
      summary: 'Disable or enable a robot, or set when it ends (null: never)',
      body: z
        .strictObject({ disabled: z.boolean().optional(), expiresAt: schemas.Time.nullable().optional() })
        .refine(change => Object.keys(change).length > 0, 'say what to change'),
      handle: ({ actor, body, param }) => {
        const { disabled, expiresAt } = body
        return admin.changeRobot(actor, {
          name: param('name'),
          ...(disabled === undefined ? {} : { disabled }),
          ...(expiresAt === undefined ? {} : { expiresAt: expiresAt === null ? null : new Date(expiresAt) }),
        })
      },
    }),
    endpoint({
      method: 'delete',
      path: '/robots/:name',
      summary: 'Remove a robot with its secrets and grants',
      handle: ({ actor, param }) => admin.deleteRobot(actor, param('name')),
    }),
    endpoint({
      method: 'post',
      path: '/tokens',
      summary: 'Make a personal access token',
      body: z.strictObject({
        ...ofUser.shape,
        name: schemas.Name,
        scopes: schemas.PatternActionsList.optional(),
        expiresAt: schemas.Time.optional(),
      }),
      status: 201,
      answer: withSecret,
      handle: ({ actor, body }) => {
        const { user, name, scopes, expiresAt } = body
        return admin.createToken(actor, {
          ...own(user),
          name,
          ...(scopes === undefined ? {} : { scopes }),
          ...(expiresAt === undefined ? {} : { expiresAt: new Date(expiresAt) }),
        })
      },
    }),
    listEndpoint({
      path: '/tokens',
      summary: 'Personal access tokens by name',
      query: z.strictObject({ ...pageQuery.shape, ...ofUser.shape }),
      item: schemas.Token,
      page: ({ actor, query }) => admin.listTokens(actor, query.user, query),
    }),
    endpoint({
      method: 'post',
      path: '/tokens/:name/secrets',
      summary: 'Give a token a new secret; the former one stays good for a while',
      body: z.strictObject({ ...ofUser.shape, ...rotation.shape }),
      status: 201,
      answer: withSecret,
      handle: ({ actor, body, param }) =>
        admin.rotateToken(actor, { ...own(body.user), name: param('name'), overlapMs: body.overlapSeconds * 1000 }),
    }),
    endpoint({
      method: 'delete',
      path: '/tokens/:name',
      summary: 'Remove a personal access token',
      query: ofUser,
      handle: ({ actor, query, param }) => admin.deleteToken(actor, { ...own(query.user), name: param('name') }),
    }),
    endpoint({
      method: 'post',
      path: '/trust-rules',
      summary: 'Trust identity tokens of a CI system, with what their bearers may',
      body: z.strictObject({ ...schemas.TrustRule.shape, grants: schemas.PatternActionsList }),
      status: 201,
      handle: ({ actor, body }) => admin.createTrustRule(actor, body),
    }),
    listEndpoint({
      path: '/trust-rules',
      summary: 'Trust rules by name',
      item: schemas.TrustRule,
      page: ({ actor, query }) => admin.listTrustRules(actor, query),
    }),
    endpoint({
      method: 'post',
      path: '/trust-tests',
      summary:
        'What the rules of an issuer make of the claims of an identity token; its signature and times are not looked at',
      body: z.strictObject({
        claims: z.record(z.string(), z.unknown()),
        user: z.string().max(255).optional().describe('The user name of the login: that of a rule chooses it'),
      }),
      answer: z.object({ items: z.array(schemas.TrustExplanation) }),
      handle: async ({ actor, body: { claims, user } }) => ({
        items: await admin.testTrust(actor, user === undefined ? { claims } : { claims, user }),
      }),
    }),
    endpoint({
      method: 'delete',
      path: '/trust-rules/:name',
      summary: 'Remove a trust rule, which ends every session that came of it',
      handle: ({ actor, param }) => admin.deleteTrustRule(actor, param('name')),
    }),
  ]
}
