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
  upload?: UploadCapability & { readonly expiresAt: number }
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
  const challenge = (ctx: Context, scope: string, why: Pick<Challenge, 'error' | 'description'> = {}) => ({
    'WWW-Authenticate': challengeHeader({
      realm: realm ?? `${originOf(ctx, publicUrl)}/token`,
      service: authority.service,
      scope,
      ...why,
    }),
  })

  /** Adds a challenge to the refusal of what was shown; any other error stays as it is. */
  const challenged = (ctx: Context, scope: string, error: unknown): unknown => {
    if (!(error instanceof RegistryError) || error.code !== 'UNAUTHORIZED') return error
    const headers = challenge(ctx, scope, { error: 'invalid_token', description: error.message })
    return new RegistryError('UNAUTHORIZED', { message: error.message, headers, cause: error.cause ?? error })
  }

  /** Who asks, where that is known without waiting: most requests show what was shown before. */
  const recall = (ctx: Context): Access | undefined => authority.recall(parseAuthorization(ctx.get('Authorization')))

  const identify = async (ctx: Context, scope: string): Promise<Access> => {
    try {
      return await authority.access(parseAuthorization(ctx.get('Authorization')), sourceOf(ctx))
    } catch (error) {
      throw challenged(ctx, scope, error)
    }
  }

  /** The refusal of what does not allow enough; who has shown nothing is only asked to. */
  const tooNarrow = (ctx: Context, access: Access, scope: string, message: string, detail?: object): RegistryError => {
    const why = access.shown ? ({ error: 'insufficient_scope', description: message } as const) : {}
    return new RegistryError('UNAUTHORIZED', { message, detail, headers: challenge(ctx, scope, why) })
  }

  /** @throws RegistryError UNAUTHORIZED with a challenge where it does not allow the action. */
  const permit = (ctx: Context, access: Access, action: Action, name: RepositoryName): void => {
    ;(ctx.state as GateState).access = access
    if (access.may(action, name)) return
    throw tooNarrow(ctx, access, scopeOf(name, action), refusal(access, action), { repository: name, action })
  }

  const demand = async (ctx: Context, action: Action, name: RepositoryName): Promise<void> =>
    permit(ctx, await identify(ctx, scopeOf(name, action)), action, name)

  return {
    repository: action => async (ctx, next) => {
      const name = nameIn(ctx)
      const known = recall(ctx)
      if (known === undefined) await demand(ctx, action, name)
      else permit(ctx, known, action, name)
      try {
        await next()
      } catch (error) {
        // A rule that finds the token out of date refuses with a challenge as well.
        throw challenged(ctx, scopeOf(name, action), error)
      }
    },
    upload: async (ctx, next) => {
      const { [CAPABILITY_PARAMETER]: capability } = ctx.query
      const { id = '' } = ctx['params'] as { id?: string }
      const name = nameIn(ctx)
      const upload = typeof capability === 'string' ? await authority.findUpload(capability, id, name) : undefined
      if (upload === undefined) await demand(ctx, 'push', name)
      else (ctx.state as GateState).upload = upload
      try {
        await next()
      } catch (error) {
        throw challenged(ctx, scopeOf(name, 'push'), error)
      }
    },
    ping: async (ctx, next) => {
      const access = recall(ctx) ?? (await identify(ctx, ''))
      if (!access.shown) throw new RegistryError('UNAUTHORIZED', { headers: challenge(ctx, '') })
      await next()
    },
    catalog: async (ctx, next) => {
      const scope = 'registry:catalog:*'
      const access = recall(ctx) ?? (await identify(ctx, scope))
      ;(ctx.state as GateState).access = access
      if (!access.mayList) throw tooNarrow(ctx, access, scope, 'the token is not for listing repositories')
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
