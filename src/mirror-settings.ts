import { parse as parseYaml } from 'yaml'
import { z } from 'zod'
import { knownUpstream } from './known-upstreams.ts'
import { tagPatternFault } from './oci/tag-pattern.ts'
import { EVER, duration, size, text, truth } from './setting-values.ts'

const url = z
  .url({ protocol: /^https?$/, error: 'must be a URL such as https://registry-1.docker.io', abort: true })
  .refine(value => new URL(value).username === '', 'must not hold credentials: username and passwordFile do')
const host = text.regex(/^(?:\*\.)?[a-z0-9.:-]+$/i, 'must be a host name, or *. and a domain')
const pattern = text.regex(/^[a-z0-9._*/-]+$/, 'must be a repository pattern such as library/* or team/**')
const tagPattern = text.superRefine((value, context) => {
  const fault = tagPatternFault(value)
  if (fault !== undefined) context.addIssue(fault)
})
const PREFIX = /^[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:\/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*$/

/** One upstream, by the prefix of the repositories that mirror it. */
const upstream = z.strictObject({
  url: url.describe('The registry to fetch from.'),
  username: text.optional().describe('Who fetches; without it nobody in particular.'),
  password: text.optional().describe('The password or token of username.'),
  passwordFile: text.optional().describe('A file that holds it.'),
  allow: z.array(pattern).optional().describe('Upstream repositories that may be fetched; without it all.'),
  deny: z.array(pattern).optional().describe('Upstream repositories that may not, whatever allow says.'),
  tagTtl: duration('0s', EVER)
    .optional()
    .describe('How long a tag is taken as it is before the upstream is asked again.'),
  tagTtls: z
    .array(z.strictObject({ tags: tagPattern, ttl: duration('0s', EVER) }))
    .optional()
    .describe('The same for some tags: the first whose pattern matches decides.'),
  offline: truth.optional().describe('Serve what is here and ask nothing.'),
  keepDeletedTags: truth.optional().describe('Serve tags on that are gone at the upstream.'),
  namespaces: z.array(host).optional().describe('What clients say in ?ns= for this upstream.'),
  hosts: z.array(host).optional().describe('Host names under which this mirror stands at the root.'),
  trustedHosts: z.array(host).optional().describe('Where the upstream may send us, besides its own domain.'),
  allowPrivate: truth.optional().describe('Whether it may be at, or lead to, addresses of our own network.'),
  ca: text.optional().describe('A PEM file of authorities to trust in place of the usual ones.'),
  maxBytes: size('1MiB', '1048576GiB')
    .optional()
    .describe(
      'How much its copies may take, each blob counted once; what was not used for longest goes. Without it all.',
    ),
  bandwidth: size('16KiB', '1024GiB')
    .optional()
    .describe('How many bytes of blobs are fetched in a second at most, by each process.'),
  proxy: url.optional().describe('An HTTP proxy for everything, in place of HTTP_PROXY, HTTPS_PROXY and NO_PROXY.'),
})

/** What is set for one upstream; durations in milliseconds. */
export type UpstreamSettings = z.output<typeof upstream>

/** Every upstream by prefix; as text, that is from the environment, in YAML or JSON. */
export const upstreams = z
  .preprocess(readText, z.record(text.regex(PREFIX, 'must be the beginning of a repository name'), upstream))
  .superRefine((all, context) => {
    const prefixes = Object.keys(all)
    for (const prefix of prefixes) {
      const outer = prefixes.find(other => prefix.startsWith(`${other}/`))
      if (outer !== undefined) context.addIssue(`${prefix} lies below ${outer}: prefixes must not contain each other`)
      const { username, password, passwordFile } = all[prefix] ?? {}
      if ((username === undefined) !== (password === undefined && passwordFile === undefined)) {
        context.addIssue(`${prefix}: username and password (or passwordFile) go together`)
      }
      if (password !== undefined && passwordFile !== undefined) {
        context.addIssue(`${prefix}: set password or passwordFile, not both`)
      }
    }
    for (const [what, namesOf] of [
      ['namespaces', namespacesOf],
      ['hosts', hostsOf],
    ] as const) {
      const taken = new Map<string, string>()
      for (const prefix of prefixes) {
        for (const name of new Set(all[prefix] === undefined ? [] : namesOf(all[prefix]))) {
          const other = taken.get(name)
          taken.set(name, prefix)
          if (other === undefined) continue
          context.addIssue(
            `${name} would be among the ${what} of ${other} and ${prefix}: set ${what} of one of them to others, or to []`,
          )
        }
      }
    }
  })

/** What clients say in `?ns=` for an upstream, in lower case; without being set what they call it anyway. */
export function namespacesOf({ namespaces, url: upstreamUrl }: UpstreamSettings): string[] {
  const known = URL.parse(upstreamUrl)
  return (namespaces ?? (known === null ? [] : knownUpstream(known.host).namespaces)).map(name => name.toLowerCase())
}

function hostsOf({ hosts = [] }: UpstreamSettings): string[] {
  return hosts.map(name => name.toLowerCase())
}

function readText(value: unknown): unknown {
  if (typeof value !== 'string') return value
  try {
    return parseYaml(value)
  } catch {
    return value
  }
}
