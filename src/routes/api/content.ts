import { z } from 'zod'
import type { Actor } from '../../access/actor.ts'
import type { Administration } from '../../access/administration.ts'
import { idOf } from '../../access/page.ts'
import type { Action } from '../../auth/identity.ts'
import { parseDigest } from '../../oci/digest.ts'
import { RegistryError } from '../../oci/errors.ts'
import { type RepositoryName, parseName, parseReference, parseTag } from '../../oci/name.ts'
import type { AdminCaller } from '../../registry/context.ts'
import type { Registry } from '../../registry/registry.ts'
import { type Endpoint, endpoint, listEndpoint, pageQuery } from './endpoint.ts'
import * as schemas from './schemas.ts'

/** Whoever may do `action` on a repository, as the rules know him. */
type Admit = (
  actor: Actor,
  action: Action,
  repository: string,
) => Promise<{ name: RepositoryName; caller: AdminCaller }>

/** Repositories, what was deleted of them, and where their tags pointed before. */
export function contentEndpoints(admin: Administration, registry: Registry): Endpoint[] {
  const admit: Admit = async (actor, action, repository) => {
    const name = parseName(repository)
    await admin.requireAction(actor, action, name)
    return { name, caller: callerOf(actor) }
  }
  return [
    ...repositoryEndpoints(admin, registry, admit),
    ...deletionEndpoints(registry, admit),
    ...historyEndpoints(registry, admit),
  ]
}

function callerOf({ identity, source }: Actor): AdminCaller {
  const { name: principal, principalId } = identity
  return { mayPush: true, principal, ...(principalId === undefined ? {} : { principalId }), ...source }
}

function repositoryEndpoints(admin: Administration, registry: Registry, admit: Admit): Endpoint[] {
  return [
    listEndpoint({
      path: '/repositories',
      summary: 'Repositories by name, also empty ones',
      item: schemas.Repository,
      page: async ({ actor, query }) => await registry.listRepositories(await admin.visibleNames(actor), query),
    }),
    listEndpoint({
      path: '/deleted-repositories',
      summary: 'Repositories that were deleted and can be brought back, in the order they were made',
      item: schemas.DeletedRepository,
      page: async ({ actor, query }) => {
        const ask = { last: idOf(query.last) ?? 0, limit: query.limit }
        return await registry.listDeletedRepositories(await admin.visibleNames(actor), ask)
      },
    }),
    endpoint({
      method: 'get',
      path: '/repositories/*name',
      summary: 'A repository with the number of its tags and manifests',
      answer: schemas.RepositoryDetails,
      handle: async ({ actor, param }) => {
        const { name } = await admit(actor, 'pull', param('name'))
        return await registry.describeRepository(name)
      },
    }),
    endpoint({
      method: 'delete',
      path: '/repositories/*name',
      summary: 'Delete a repository; its name is free at once, and until the grace is over it can be brought back',
      handle: async ({ actor, param }) => {
        const { name, caller } = await admit(actor, 'delete', param('name'))
        await registry.deleteRepository(name, caller)
      },
    }),
    endpoint({
      method: 'post',
      path: '/repository-undeletions',
      summary: 'Bring a deleted repository back whole, where its name is free',
      body: z.strictObject({
        repository: schemas.RepositoryName,
        id: z.int().min(1).optional().describe('Which of that name; the one that was deleted last without it'),
      }),
      answer: z.object({ id: z.int() }),
      handle: async ({ actor, body }) => {
        const { name, caller } = await admit(actor, 'push', body.repository)
        return await registry.undeleteRepository({ name, id: body.id }, caller)
      },
    }),
  ]
}

function deletionEndpoints(registry: Registry, admit: Admit): Endpoint[] {
  return [
    endpoint({
      method: 'post',
      path: '/manifest-deletions',
      summary: 'Delete a tag, or a manifest with its tags; with force also a manifest that an index names',
      body: z.strictObject({
        repository: schemas.RepositoryName,
        reference: schemas.Reference,
        force: z.boolean().default(false),
      }),
      handle: async ({ actor, body }) => {
        const { name, caller } = await admit(actor, 'delete', body.repository)
        await registry.deleteManifestByAdmin(
          { name, reference: parseReference(body.reference), force: body.force },
          caller,
        )
      },
    }),
    endpoint({
      method: 'post',
      path: '/undeletions',
      summary: 'Bring a deleted tag or manifest back, with what was deleted after it',
      body: z.strictObject({
        repository: schemas.RepositoryName,
        reference: schemas.Reference,
        force: z.boolean().default(false).describe('Move a tag that is there with another digest'),
      }),
      answer: schemas.Undeleted,
      handle: async ({ actor, body }) => {
        const { name, caller } = await admit(actor, 'push', body.repository)
        const { tag, digest } = parseReference(body.reference)
        if (tag !== undefined) return await registry.undeleteTag({ name, tag, force: body.force }, caller)
        return await registry.undeleteManifest(name, digest, caller)
      },
    }),
  ]
}

function historyEndpoints(registry: Registry, admit: Admit): Endpoint[] {
  return [
    listEndpoint({
      path: '/tag-history',
      summary: 'Where a tag pointed, when it was changed and by whom, newest first',
      query: z.strictObject({ ...pageQuery.shape, repository: schemas.RepositoryName, tag: schemas.Tag }),
      item: schemas.TagHistoryEntry,
      page: async ({ actor, query }) => {
        const { name } = await admit(actor, 'pull', query.repository)
        const ask = { last: idOf(query.last), limit: query.limit }
        return await registry.listTagHistory({ name, tag: parseTag(query.tag) }, ask)
      },
    }),
    endpoint({
      method: 'post',
      path: '/tag-rollbacks',
      summary: 'Point a tag at what it pointed to before',
      body: z.strictObject({
        repository: schemas.RepositoryName,
        tag: schemas.Tag,
        to: z.string().max(200).optional().describe('A digest of its history'),
        steps: z.int().min(1).max(10_000).optional().describe('So many changes ago; 1 without either'),
      }),
      answer: z.object({ from: z.string(), to: z.string() }),
      handle: async ({ actor, body }) => {
        if (body.to !== undefined && body.steps !== undefined) {
          throw new RegistryError('INVALID', { message: 'body: say to or steps, not both' })
        }
        const { name, caller } = await admit(actor, 'push', body.repository)
        const target = body.to === undefined ? { steps: body.steps ?? 1 } : { to: parseDigest(body.to) }
        return await registry.rollBackTag({ name, tag: parseTag(body.tag), target }, caller)
      },
    }),
  ]
}
