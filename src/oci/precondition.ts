/**
 * Whether If-None-Match spares the client the content it has: RFC 9110 section 13.1.2, compared weakly; `*` is whatever
 * there is. The digest is the entity tag, and clients also send it bare.
 */
export function noneMatches(header: string, digest: string): boolean {
  return header
    .split(',')
    .map(tag => tag.trim().replace(/^W\//, ''))
    .some(tag => tag === '*' || tag === `"${digest}"` || tag === digest)
}

/**
 * Whether a Range header counts beside this If-Range: RFC 9110 section 13.1.5, compared strongly. A date never counts,
 * because no answer has a Last-Modified.
 */
export function rangeStands(header: string, digest: string): boolean {
  return header === '' || header.trim() === `"${digest}"`
}
