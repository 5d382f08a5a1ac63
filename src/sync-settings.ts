import { validRange } from 'semver'
import { parse as parseYaml } from 'yaml'
import { z } from 'zod'
import { scheduleFault } from './jobs/cron.ts'
import { patternFault } from './oci/repository-pattern.ts'
import { tagPatternFault } from './oci/tag-pattern.ts'
import { text, truth, whole } from './setting-values.ts'

const url = z
  .url({ protocol: /^https?$/, error: 'must be a URL such as https://registry.example', abort: true })
  .refine(value => new URL(value).username === '', 'must not hold credentials: username and passwordFile do')
const host = text.regex(/^(?:\*\.)?[a-z0-9.:-]+$/i, 'must be a host name, or *. and a domain')
const repositoryPattern = text.superRefine((value, context) => {
  const fault = patternFault(value)
  if (fault !== undefined) context.addIssue(fault)
})
const tagPattern = text.superRefine((value, context) => {
  const fault = tagPatternFault(value)
  if (fault !== undefined) context.addIssue(fault)
})
const path = text.regex(
  /^[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:\/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*$/,
  'must be the beginning of a repository name, such as team or hub/library',
)

const tags = z.strictObject({
  match: z
    .array(tagPattern)
    .min(1)
    .optional()
    .describe('Globs, or regular expressions between slashes; without it all.'),
  exclude: z.array(tagPattern).optional().describe('Tags that are left out, whatever match says.'),
  versions: text
    .refine(range => validRange(range) !== null, 'must be a range of semantic versions such as >=1.2 <3')
    .optional()
    .describe('Only tags that are semantic versions of this range.'),
  prereleases: truth.optional().describe('Whether versions such as 1.2.3-alpine count.'),
  newest: whole(1, 100_000).optional().describe('Of these, only so many of the newest.'),
  newestBy: z
    .enum(['version', 'created'], 'must be version or created')
    .optional()
    .describe('What is newest: the highest versions, or the images that were built last, which are read to know.'),
})

/** One sync with another registry. */
const sync = z.strictObject({
  direction: z.enum(['pull', 'push'], 'must be pull or push').describe('From there to here, or from here to there.'),
  url: url.describe('The other registry.'),
  username: text.optional().describe('Who asks there; without it nobody in particular.'),
  password: text.optional().describe('The password or token of username.'),
  passwordFile: text.optional().describe('A file that holds it.'),
  repositories: z
    .array(repositoryPattern)
    .min(1, 'must name at least one repository')
    .describe('Names, or patterns such as team/**, of repositories where they come from.'),
  stripPrefix: path.optional().describe('The beginning of their names that is left out where they go.'),
  addPrefix: path.optional().describe('What their names begin with where they go.'),
  tags: tags.optional().describe('Which tags; without it all.'),
  platforms: z
    .array(text.regex(/^[a-z0-9]+\/[a-z0-9_]+(?:\/[a-z0-9.]+)?$/, 'must be such as linux/amd64 or linux/arm64/v8'))
    .min(1)
    .optional()
    .describe('Which images of an index; without it all.'),
  referrers: truth.optional().describe('Whether signatures, attestations and SBOMs come along.'),
  schedule: text.optional().describe('Five fields of cron; without it it runs when somebody says so.'),
  timeZone: text.optional().describe('An IANA name.'),
  maxConcurrent: whole(1, 64).optional().describe('Images that are copied at once.'),
  trustedHosts: z.array(host).optional().describe('Where the registry may send us, besides its own domain.'),
  allowPrivate: truth.optional().describe('Whether it may be at, or lead to, addresses of our own network.'),
  ca: text.optional().describe('A PEM file of authorities to trust in place of the usual ones.'),
  proxy: url.optional().describe('An HTTP proxy to go through, in place of the one of the environment.'),
})

/** What is set for one sync. */
export type SyncSettings = z.output<typeof sync>

/** Every sync by name; as text, that is from the environment, in YAML or JSON. */
export const syncs = z
  .preprocess(readText, z.record(text.regex(/^[a-z0-9][a-z0-9._-]{0,99}$/, 'must be a name of a-z 0-9 . _ -'), sync))
  .superRefine((all, context) => {
    for (const [name, settings] of Object.entries(all)) {
      for (const fault of faultsOf(settings)) context.addIssue(`${name}: ${fault}`)
    }
  })

function* faultsOf(settings: SyncSettings): Generator<string> {
  const { username, password, passwordFile, schedule, timeZone = 'UTC' } = settings
  if ((username === undefined) !== (password === undefined && passwordFile === undefined)) {
    yield 'username and password (or passwordFile) go together'
  }
  if (password !== undefined && passwordFile !== undefined) yield 'set password or passwordFile, not both'
  const { newest, newestBy } = settings.tags ?? {}
  if (newestBy !== undefined && newest === undefined) yield 'tags.newestBy needs tags.newest'
  const fault = schedule === undefined ? undefined : scheduleFault({ schedule, timeZone })
  if (fault !== undefined) yield fault
}

function readText(value: unknown): unknown {
  if (typeof value !== 'string') return value
  try {
    return parseYaml(value)
  } catch {
    return value
  }
}
