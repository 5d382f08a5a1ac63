/** What a 401 tells a client: where to get a token and for what. RFC 6750 section 3 and Distribution's token protocol. */
export interface Challenge {
  /** Absolute URL of the token endpoint, by the name under which the client reaches us. */
  readonly realm: string
  readonly service: string
  /** Scopes separated by spaces; empty for none. */
  readonly scope: string
  /** Only where a token was shown: clients then give up or ask anew instead of guessing. */
  readonly error?: 'invalid_token' | 'insufficient_scope'
  /**
   * What a person is told, beside `error`. The answer to a HEAD has no other place for it, and Docker, podman and skopeo
   * print it (distribution, `HandleHTTPResponseError`).
   */
  readonly description?: string
}

/** The value of `WWW-Authenticate`: one challenge in one line, all values quoted. */
export function challengeHeader(challenge: Challenge): string {
  const parts = [`realm="${challenge.realm}"`, `service="${challenge.service}"`]
  if (challenge.scope !== '') parts.push(`scope="${challenge.scope}"`)
  if (challenge.error !== undefined) parts.push(`error="${challenge.error}"`)
  const { error, description } = challenge
  if (error !== undefined && description !== undefined) parts.push(`error_description="${describable(description)}"`)
  return `Bearer ${parts.join(',')}`
}

/** The text in the characters that an `error_description` may have: RFC 6750 section 3 and RFC 6749 section 5.2. */
export function describable(text: string): string {
  return text.replaceAll('"', "'").replaceAll(/[^\x20-\x21\x23-\x5b\x5d-\x7e]/g, '?')
}

/** What an `Authorization` header shows. */
export type Credentials =
  | { readonly kind: 'none' }
  | { readonly kind: 'basic'; readonly name: string; readonly password: string }
  | { readonly kind: 'bearer'; readonly token: string }
  /** A scheme we do not know, or one that cannot be read. */
  | { readonly kind: 'unreadable' }

/**
 * Longer `Authorization` headers are refused unread. The longest token that is taken ({@link MAX_TOKEN_LENGTH}) fits, also
 * as the password beside a name (base64: four characters for three); and all of it, with room for the other headers,
 * into what the server reads of a request's head (64 KiB).
 */
export const MAX_AUTHORIZATION_LENGTH = 48 * 1024

/**
 * The credentials in an `Authorization` header: RFC 7617 (UTF-8, the name ends at the first colon) and RFC 6750
 * section 2.1. Basic with an empty name and password is what some clients send for "nobody".
 */
export function parseAuthorization(header: string): Credentials {
  if (header === '') return { kind: 'none' }
  const space = header.indexOf(' ')
  if (header.length > MAX_AUTHORIZATION_LENGTH || space < 0) return { kind: 'unreadable' }
  const scheme = header.slice(0, space).toLowerCase()
  const value = header.slice(space + 1).trim()
  // Every request shows a token: no regular expression for it.
  if (scheme === 'bearer' && value !== '' && !value.includes(' ')) return { kind: 'bearer', token: value }
  if (scheme !== 'basic' || value === '') return { kind: 'unreadable' }
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(value)) return { kind: 'unreadable' }
  const text = Buffer.from(value, 'base64').toString('utf8')
  const colon = text.indexOf(':')
  if (colon < 0 || text.includes('\0')) return { kind: 'unreadable' }
  const name = text.slice(0, colon)
  const password = text.slice(colon + 1)
  return name === '' && password === '' ? { kind: 'none' } : { kind: 'basic', name, password }
}
