import { RegistryError } from './errors.ts'

/** A query as Node parses it. */
export type Query = Readonly<Record<string, string | string[] | undefined>>

/**
 * `n` and `last` of a list request: distribution-spec, "Listing Tags". An `n` above `max` is lowered to it.
 * @throws RegistryError PAGINATION_NUMBER_INVALID where `n` is not a non-negative integer.
 */
export function parsePage(query: Query, max: number): { n: number | undefined; last: string | undefined } {
  const text = lastOf(query['n'])
  // No name holds NUL, which Postgres refuses: whatever sorts after `a\0b` is what sorts after `a`.
  const last = lastOf(query['last'])?.split('\0', 1)[0]
  if (text === undefined) return { n: undefined, last }
  if (!/^\d{1,400}$/.test(text)) {
    throw new RegistryError('PAGINATION_NUMBER_INVALID', { detail: { n: text.slice(0, 100) } })
  }
  return { n: Math.min(Number(text), max), last }
}

function lastOf(value: string | string[] | undefined): string | undefined {
  return typeof value === 'object' ? value.at(-1) : value
}

/** A Link header to the next page (RFC 8288); whatever clients split on is percent-encoded. */
export function nextLink(
  path: string,
  params: Readonly<Record<string, string | readonly string[] | undefined>>,
): string {
  const query = new URLSearchParams()
  for (const [key, values] of Object.entries(params)) {
    for (const value of typeof values === 'string' ? [values] : (values ?? [])) query.append(key, value)
  }
  return `<${path}?${query.toString()}>; rel="next"`
}
