import type Router from '@koa/router'
import type { Context } from 'koa'
import type { Authority, IssuedToken } from '../auth/authority.ts'
import { parseAuthorization } from '../auth/challenge.ts'
import { type Scope, parseScopes, scopeText } from '../auth/scope.ts'
import { scopeNamesOf } from '../middleware/addressing.ts'
import { sourceOf } from '../middleware/gate.ts'
import { json, queryValue, queryValues, readForm } from './params.ts'
import { missingParameter, tokenRefusals, unknownGrant } from './token-refusals.ts'

const MAX_FORM_BYTES = 64 * 1024

/** The token endpoint, by Distribution's token protocol and the OAuth 2 form of it; and the keys that verify tokens. */
export function tokenRoutes(router: Router, authority: Authority): void {
  const refusals = tokenRefusals(authority.service)

  router.get('/token', refusals, async ctx => {
    const { identity, refreshMs } = await authority.login(parseAuthorization(ctx.get('Authorization')), sourceOf(ctx))
    const offline = queryValue(ctx, 'offline_token') === 'true'
    const scopes = scopesOf(ctx, queryValues(ctx, 'scope'))
    present(ctx, await authority.issue(identity, scopes, offline ? refreshMs : undefined, sourceOf(ctx)))
  })

  router.post('/token', refusals, async ctx => {
    const form = await readForm(ctx, MAX_FORM_BYTES)
    const scopes = scopesOf(ctx, form.getAll('scope'))
    const source = sourceOf(ctx)
    switch (form.get('grant_type')) {
      case 'password': {
        const name = required(form, 'username')
        const password = required(form, 'password')
        const { identity, refreshMs } = await authority.login({ kind: 'basic', name, password }, source)
        const offline = form.get('access_type') === 'offline'
        present(ctx, await authority.issue(identity, scopes, offline ? refreshMs : undefined, source))
        return
      }
      case 'refresh_token': {
        const refreshToken = required(form, 'refresh_token')
        const identity = await authority.refresh(refreshToken, source)
        present(ctx, { ...(await authority.issue(identity, scopes, undefined, source)), refreshToken })
        return
      }
      default:
        throw unknownGrant(form.get('grant_type'))
    }
  })

  router.get('/.well-known/jwks.json', async ctx => {
    json(ctx, await authority.keySet())
    ctx.set('Cache-Control', 'public, max-age=300')
  })
}

function required(form: URLSearchParams, parameter: string): string {
  const value = form.get(parameter)
  if (value === null) throw missingParameter(parameter)
  return value
}

/** The scopes that are asked for, by the names that the repositories have here. */
function scopesOf(ctx: Context, values: readonly string[]): Scope[] {
  return parseScopes(values).flatMap(scope =>
    scope.type === 'repository' ? scopeNamesOf(ctx, scope.name).map(name => ({ ...scope, name })) : [scope],
  )
}

function present(ctx: Context, issued: IssuedToken): void {
  json(ctx, {
    token: issued.token,
    access_token: issued.token,
    expires_in: issued.expiresIn,
    issued_at: issued.issuedAt.toISOString(),
    scope: issued.granted.map(scopeText).join(' '),
    ...(issued.refreshToken === undefined ? {} : { refresh_token: issued.refreshToken }),
  })
  ctx.set('Cache-Control', 'no-store')
}
