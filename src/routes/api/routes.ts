import type Router from '@koa/router'
import type { Context } from 'koa'
import type { Actor } from '../../access/actor.ts'
import type { Administration } from '../../access/administration.ts'
import type { Authority } from '../../auth/authority.ts'
import { parseAuthorization } from '../../auth/challenge.ts'
import { sourceOf } from '../../middleware/gate.ts'
import { RegistryError } from '../../oci/errors.ts'
import type { Registry } from '../../registry/registry.ts'
import { json } from '../params.ts'
import { accessEndpoints } from './access.ts'
import { accountEndpoints } from './accounts.ts'
import { collectionEndpoints } from './collection.ts'
import { contentEndpoints } from './content.ts'
import { API_PREFIX, type Endpoint, apiRoutes } from './endpoint.ts'
import { machineEndpoints } from './machines.ts'
import { mirrorEndpoints } from './mirrors.ts'
import { openApiDocument } from './openapi.ts'
import { retentionEndpoints } from './retention.ts'
import { storageEndpoints } from './storage.ts'
import { syncEndpoints } from './syncs.ts'
import { tagRuleEndpoints } from './tag-rules.ts'
import { usageEndpoints } from './usage.ts'

/** Every endpoint of the administration's API. */
export function administrationEndpoints(admin: Administration, registry: Registry): Endpoint[] {
  return [
    ...accountEndpoints(admin),
    ...machineEndpoints(admin),
    ...accessEndpoints(admin),
    ...contentEndpoints(admin, registry),
    ...tagRuleEndpoints(admin),
    ...storageEndpoints(admin),
    ...retentionEndpoints(admin),
    ...collectionEndpoints(admin),
    ...syncEndpoints(admin),
    ...usageEndpoints(admin),
    ...mirrorEndpoints(admin),
  ]
}

/** The administration's API, with its own description. */
export function administrationRoutes(
  router: Router,
  { administration, version }: { readonly administration: Administration; readonly version: string },
  registry: Registry,
  identify: (ctx: Context) => Promise<Actor>,
): void {
  const endpoints = administrationEndpoints(administration, registry)
  const document = openApiDocument(endpoints, version)
  router.get(`${API_PREFIX}/openapi.json`, ctx => json(ctx, document))
  apiRoutes(router, endpoints, identify)
}

/** What every 401 must say: RFC 9110 section 15.5.2. */
const CHALLENGE = { 'WWW-Authenticate': 'Basic realm="berth", charset="UTF-8"' }

/** Who calls the API over HTTP: by password, or by a token in its place or as bearer. */
export function identifyBy(authority: Authority): (ctx: Context) => Promise<Actor> {
  return async ctx => {
    const source = sourceOf(ctx)
    const shown = parseAuthorization(ctx.get('Authorization'))
    const credentials = shown.kind === 'bearer' ? ({ kind: 'basic', name: '', password: shown.token } as const) : shown
    try {
      const { identity } = await authority.login(credentials, source)
      if (identity.kind !== 'anonymous') return { identity, source }
    } catch (error) {
      if (!(error instanceof RegistryError) || error.code !== 'UNAUTHORIZED') throw error
      throw new RegistryError('UNAUTHORIZED', { message: error.message, headers: CHALLENGE, cause: error })
    }
    throw new RegistryError('UNAUTHORIZED', { headers: CHALLENGE })
  }
}

/** Whoever can open the administrator's socket administers this machine. */
export async function identifyLocal(ctx: Context): Promise<Actor> {
  return { identity: { kind: 'local', name: 'local administrator' }, source: { ...sourceOf(ctx), client: 'socket' } }
}
