/** One way to authenticate that a registry offers: RFC 9110 section 11.6.1, distribution-spec, "Token authentication". */
export interface Offer {
  /** In lower case: `bearer` or `basic`, or what else a server invents. */
  readonly scheme: string
  /** Names in lower case. */
  readonly parameters: ReadonlyMap<string, string>
}

const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+/
const QUOTED = /^"((?:[^"\\]|\\.)*)"/
/** A header longer than this is no challenge of a registry. */
const MAX_LENGTH = 8_192

/** The challenges of a `WWW-Authenticate` header, in order; what cannot be read ends the list. */
export function parseChallenges(header: string): Offer[] {
  const offers: { scheme: string; parameters: Map<string, string> }[] = []
  let rest = header.slice(0, MAX_LENGTH)
  const skip = (pattern: RegExp): void => {
    rest = rest.replace(pattern, '')
  }
  for (;;) {
    skip(/^[\s,]+/)
    const name = TOKEN.exec(rest)?.[0]
    if (name === undefined) return offers
    rest = rest.slice(name.length)
    const current = offers.at(-1)
    if (!/^\s*=/.test(rest)) {
      offers.push({ scheme: name.toLowerCase(), parameters: new Map() })
      continue
    }
    skip(/^\s*=\s*/)
    const quoted = QUOTED.exec(rest)
    const value = quoted?.[0] ?? TOKEN.exec(rest)?.[0]
    if (value === undefined || current === undefined) return offers
    rest = rest.slice(value.length)
    current.parameters.set(name.toLowerCase(), quoted?.[1]?.replaceAll(/\\(.)/g, '$1') ?? value)
  }
}
