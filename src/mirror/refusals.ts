import { type ErrorCode, RegistryError } from '../oci/errors.ts'
import { UpstreamFailure } from './upstream-failure.ts'

const RETRY_SECONDS = '5'

/**
 * What a client is told of an upstream that did not give what it was asked for; `absent` is the code for what it does not
 * have. Anything else as it is.
 */
export function refusalOf(error: unknown, absent: ErrorCode): unknown {
  if (!(error instanceof UpstreamFailure)) return error
  const { message, kind, retryAfter, cause } = error
  const retry = { 'Retry-After': retryAfter ?? RETRY_SECONDS }
  const detail = { upstream: message }
  if (kind === 'absent') return new RegistryError(absent, { message, detail, cause })
  if (kind === 'limited') return new RegistryError('TOOMANYREQUESTS', { message, detail, headers: retry, cause })
  if (kind === 'denied') {
    return new RegistryError('DENIED', {
      message: `${message}: the mirror's credentials are not enough there, or there is no such repository`,
      detail,
      cause,
    })
  }
  if (kind === 'refused') return new RegistryError('UNAVAILABLE', { status: 502, message, detail, cause })
  return new RegistryError('UNAVAILABLE', { message, detail, headers: retry, cause })
}
