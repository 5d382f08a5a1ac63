import type { Context, Middleware } from 'koa'
import type { Access, Authority, RequestSource } from '../auth/authority.ts'
import { type Challenge, challengeHeader, parseAuthorization } from '../auth/challenge.ts'
import type { Action } from '../auth/identity.ts'
import type { UploadCapability } from '../auth/tokens.ts'
import { RegistryError } from '../oci/errors.ts'
import { type RepositoryName, parseName } from '../oci/name.ts'
import { originOf } from './forwarded.ts'

/** Stands before each route and lets through whoever may do what the route does. */
export interface Gate {
  /** Demands an action on the repository that the route names. */
  repository(action: Action): Middleware
  /** The same for an upload session, which its Location's capability opens as well. */
  upload: Middleware
  /** Demands that anything valid is shown: `/v2/` is where clients learn how to log in. */
  ping: Middleware
  /** Demands the right to list repositories. */
  catalog: Middleware
}

/** What a gate found out, for the routes behind it. */
export interface GateState {
  access?: Access
  /** What opened an upload, where its Location did. */
  upload?: UploadCapability
}

/** The query parameter of a Location that carries the capability of an upload. */
export const CAPABILITY_PARAMETER = 'grant'

const letThrough: Middleware = (_ctx, next) => next()

/** Lets everybody through: for a registry that is open. */
export const OPEN_GATE: Gate = {
  repository: () => letThrough,
  upload: letThrough,
  ping: letThrough,
  catalog: letThrough,
}

/** Where clients are sent to. */
export interface GateAddresses {
  /** The registry's own address where it is configured. */
  readonly publicUrl: string | undefined
  /** The token endpoint, where it is another's. */
  readonly realm: string | undefined
}

/** A gate that asks `authority`. */
export function createGate(authority: Authority, { publicUrl, realm }: GateAddresses): Gate {
  const challenge = (ctx: Context, scope: string, error?: Challenge['error']): Record<string, string> => ({
    'WWW-Authenticate': challengeHeader({
      realm: realm ?? `${originOf(ctx, publicUrl)}/token`,
      service: authority.service,
      scope,
      ...(error === undefined ? {} : { error }),
    }),
  })

  const identify = async (ctx: Context, scope: string): Promise<Access> => {
    try {
      const access = await authority.access(parseAuthorization(ctx.get('Authorization')), sourceOf(ctx))
      ;(ctx.state as GateState).access = access
      return access
    } catch (error) {
      if (!(error instanceof RegistryError) || error.code !== 'UNAUTHORIZED') throw error
      throw new RegistryError('UNAUTHORIZED', {
        message: error.message,
        headers: challenge(ctx, scope, 'invalid_token'),
        cause: error.cause,
      })
    }
  }

  /** Runs what stands behind the gate; a rule that finds the token out of date refuses with a challenge as well. */
  const pass = async (ctx: Context, action: Action, next: () => Promise<unknown>): Promise<void> => {
    try {
      await next()
    } catch (error) {
      if (!(error instanceof RegistryError) || error.code !== 'UNAUTHORIZED') throw error
      const headers = challenge(ctx, scopeOf(nameIn(ctx), action), 'invalid_token')
      throw new RegistryError('UNAUTHORIZED', { message: error.message, headers, cause: error })
    }
  }

  const demand = async (ctx: Context, action: Action): Promise<void> => {
    const name = nameIn(ctx)
    const scope = scopeOf(name, action)
    const access = await identify(ctx, scope)
    if (access.may(action, name)) return
    throw new RegistryError('UNAUTHORIZED', {
      message: refusal(access, action),
      detail: { repository: name, action },
      headers: challenge(ctx, scope, access.shown ? 'insufficient_scope' : undefined),
    })
  }

  return {
    repository: action => async (ctx, next) => {
      await demand(ctx, action)
      await pass(ctx, action, next)
    },
    upload: async (ctx, next) => {
      const { [CAPABILITY_PARAMETER]: capability } = ctx.query
      const { id = '' } = ctx['params'] as { id?: string }
      const upload =
        typeof capability === 'string' ? await authority.findUpload(capability, id, nameIn(ctx)) : undefined
      if (upload === undefined) await demand(ctx, 'push')
      else (ctx.state as GateState).upload = upload
      await pass(ctx, 'push', next)
    },
    ping: async (ctx, next) => {
      const access = await identify(ctx, '')
      if (!access.shown) throw new RegistryError('UNAUTHORIZED', { headers: challenge(ctx, '') })
      await next()
    },
    catalog: async (ctx, next) => {
      const scope = 'registry:catalog:*'
      const access = await identify(ctx, scope)
      if (!access.mayList) {
        const error = access.shown ? 'insufficient_scope' : undefined
        throw new RegistryError('UNAUTHORIZED', { headers: challenge(ctx, scope, error) })
      }
      await next()
    },
  }
}

/** What a token must allow for an action, as challenges ask for it. */
const SCOPES: Readonly<Record<Action, string>> = { pull: 'pull', push: 'pull,push', delete: 'delete', admin: '*' }

function scopeOf(name: string, action: Action): string {
  return `repository:${name}:${SCOPES[action]}`
}

/** What a person is told. Clients show a token also where nobody has logged in. */
function refusal({ identity }: Access, action: Action): string {
  if (identity.kind === 'anonymous') return `log in to ${action} here`
  return `${identity.name === '' ? 'the token' : identity.name} may not ${action} here`
}

/** Where the request comes from. */
export function sourceOf(ctx: Context): RequestSource {
  return { client: ctx.ip, requestId: String(ctx.state['requestId']) }
}

/** The name in the path, which goes into challenges: only what its grammar allows. @throws RegistryError NAME_INVALID. */
function nameIn(ctx: Context): RepositoryName {
  return parseName((ctx['params'] as { name?: string }).name ?? '')
}
