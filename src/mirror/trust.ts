import { getDomain } from 'tldts'

/** Whom a mirror trusts besides the upstream itself. */
export interface Trust {
  readonly upstream: URL
  /** Host names, or `*.` and a domain, to which the upstream may send us: for tokens and for content. */
  readonly hosts: readonly string[]
  /** The same for content alone, which is fetched without credentials and checked by its digest. */
  readonly contentHosts: readonly string[]
}

/**
 * Whether the upstream may send us to `url`, for a token (which takes our credentials) or for content. Only within its
 * own registrable domain or to a host that was named, and never from HTTPS down to HTTP: CVE-2026-33540.
 */
export function isTrusted({ upstream, hosts, contentHosts }: Trust, url: URL, purpose: 'token' | 'content'): boolean {
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && upstream.protocol === 'http:')) return false
  if (url.username !== '' || url.password !== '') return false
  if (url.hostname === upstream.hostname) return true
  const named = purpose === 'content' ? [...hosts, ...contentHosts] : hosts
  if (named.some(pattern => matchesHost(pattern.toLowerCase(), url.hostname))) return true
  const domain = domainOf(upstream)
  return domain !== null && domain === domainOf(url)
}

/** Whether a request to `url` may carry the credentials that were meant for `origin`. */
export function isSameOrigin(origin: URL, url: URL): boolean {
  return origin.origin === url.origin
}

/** Customers of one hosting company do not trust each other, so its suffix is no domain. */
function domainOf({ hostname }: URL): string | null {
  return getDomain(hostname, { allowPrivateDomains: true })
}

function matchesHost(pattern: string, host: string): boolean {
  return pattern.startsWith('*.') ? host.endsWith(pattern.slice(1)) : host === pattern
}
