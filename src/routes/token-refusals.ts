import type { Middleware } from 'koa'
import { describable } from '../auth/challenge.ts'
import { RegistryError } from '../oci/errors.ts'

/**
 * Puts a refusal of the token endpoint in the words of HTTP and OAuth 2 as well: a 401 names the scheme that is taken
 * here (RFC 9110 section 15.5.2), and what refuses a form also says `error` and `error_description` (RFC 6749 section
 * 5.2) beside the protocol's own `errors`, which is what clients print.
 *
 * Wrong credentials in a form stay 401, where the RFC has 400: by 401 alone podman and skopeo tell a person that the
 * password is wrong (containers/image, `httpResponseToError`). The challenge is never Bearer: Docker would take its
 * `error` for a second error and print both (distribution, `HandleHTTPResponseError`).
 */
export function tokenRefusals(service: string): Middleware {
  const challenge = { 'WWW-Authenticate': `Basic realm="${service}", charset="UTF-8"` }
  return async (ctx, next) => {
    try {
      await next()
    } catch (error) {
      if (!(error instanceof RegistryError) || error.status >= 500) throw error
      const { code, status, message } = error
      const oauth = ctx.method === 'POST' ? oauthError(error) : undefined
      throw new RegistryError(code, {
        status,
        message,
        entries: error.entries,
        headers: { 'Cache-Control': 'no-store', ...(status === 401 ? challenge : {}), ...error.headers },
        members: oauth === undefined ? {} : { error: oauth, error_description: describable(message) },
        cause: error.cause,
      })
    }
  }
}

/** The refusal of a grant that is not taken here; null where the form names none. */
export function unknownGrant(grant: string | null): RegistryError {
  const message = 'grant_type must be password or refresh_token'
  const isMissing = grant === null || grant === ''
  return new RegistryError('UNSUPPORTED', {
    status: 400,
    message,
    members: { error: isMissing ? 'invalid_request' : 'unsupported_grant_type' },
  })
}

/** The refusal of a form without a parameter that its grant needs; nothing was judged. */
export function missingParameter(parameter: string): RegistryError {
  const message = `the form has no ${parameter}`
  return new RegistryError('UNSUPPORTED', { status: 400, message, members: { error: 'invalid_request' } })
}

/** 429 has no code there: what was shown may be right. */
function oauthError({ status, members }: RegistryError): string | undefined {
  if (members['error'] !== undefined) return members['error']
  if (status === 401) return 'invalid_grant'
  return status === 429 ? undefined : 'invalid_request'
}
