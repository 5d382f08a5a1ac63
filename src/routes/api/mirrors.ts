import { z } from 'zod'
import type { Administration } from '../../access/administration.ts'
import { type Endpoint, endpoint, listEndpoint } from './endpoint.ts'
import { LIMIT_MAX_BYTES, Pattern, Time } from './schemas.ts'

const LONGEST_SECONDS = 3650 * 86_400
const MOST_NAMES = 200

const Prefix = z.string().min(1).max(200).describe('What the names of its repositories begin with, before a /')
const Url = z
  .url({ protocol: /^https?$/, error: 'must be a URL such as https://registry-1.docker.io' })
  .max(500)
  .refine(text => URL.parse(text)?.username === '' && URL.parse(text)?.password === '', 'must hold no login')
const Host = z
  .string()
  .max(300)
  .regex(/^(?:\*\.)?[a-z0-9.:-]+$/i, 'must be a host name, or *. and a domain')
const Patterns = z.array(Pattern).max(MOST_NAMES)
const Hosts = z.array(Host).max(MOST_NAMES)
const Seconds = z.number().min(0).max(LONGEST_SECONDS)
const Count = z.int()
const Bytes = z.int().describe('Bytes')

const settings = {
  url: Url.describe('The registry to fetch from'),
  allow: Patterns.describe('Upstream repositories that may be fetched; without it all'),
  deny: Patterns.describe('Upstream repositories that may not, whatever allow says'),
  tagTtlSeconds: Seconds.describe('How long a tag is taken as it is before the upstream is asked again'),
  tagTtls: z
    .array(z.strictObject({ tags: z.string().min(1).max(300), ttlSeconds: Seconds }))
    .max(MOST_NAMES)
    .describe('The same for some tags: the first whose pattern matches decides'),
  offline: z.boolean().describe('Serve what is here and ask nothing'),
  keepDeletedTags: z.boolean().describe('Serve tags on that are gone at the upstream'),
  namespaces: Hosts.describe('What clients say in ?ns= for this upstream'),
  hosts: Hosts.describe('Host names under which this mirror stands at the root'),
  trustedHosts: Hosts.describe('Where the upstream may send us, besides its own domain'),
  allowPrivate: z.boolean().describe('Whether it may be at, or lead to, addresses of our own network'),
  ca: z
    .string()
    .max(100_000)
    .startsWith('-----BEGIN CERTIFICATE-----', 'must be PEM')
    .describe('Authorities (PEM) to trust in place of the usual ones'),
  proxy: Url.describe('An HTTP proxy to go through'),
  maxBytes: z.int().min(1).max(LIMIT_MAX_BYTES).describe('Bytes that its copies may take, each blob counted once'),
  bytesPerSecond: z
    .int()
    .min(2 ** 14)
    .max(2 ** 40)
    .describe('Bytes of blobs that each process fetches in a second at most'),
}
const Login = z
  .strictObject({ username: z.string().min(1).max(300), password: z.string().min(1).max(10_000) })
  .describe('Who fetches; never shown')

type Optional<S extends Record<string, z.ZodType>> = { [K in keyof S]: z.ZodOptional<S[K]> }
type Nullish<S extends Record<string, z.ZodType>> = { [K in keyof S]: z.ZodOptional<z.ZodNullable<S[K]>> }
const { url, ...others } = settings
const optional = Object.fromEntries(
  Object.entries(others).map(([name, schema]) => [name, schema.optional()]),
) as Optional<typeof others>
const nullish = Object.fromEntries(
  Object.entries(others).map(([name, schema]) => [name, schema.nullable().optional()]),
) as Nullish<typeof others>

const Mirror = z.object({
  prefix: Prefix,
  source: z.enum(['settings', 'api']).describe('Where it was set up; those of the settings change there'),
  url: z.string(),
  username: z.string().nullable(),
  allow: z.array(z.string()),
  deny: z.array(z.string()),
  tagTtlSeconds: z.number(),
  tagTtls: z.array(z.object({ tags: z.string(), ttlSeconds: z.number() })),
  offline: z.boolean(),
  keepDeletedTags: z.boolean(),
  namespaces: z.array(z.string()),
  hosts: z.array(z.string()),
  trustedHosts: z.array(z.string()),
  allowPrivate: z.boolean(),
  maxBytes: Bytes.nullable(),
  bytesPerSecond: Bytes.nullable(),
  leftAlone: z.string().nullable().describe('Why the process that answers does not ask the upstream now'),
})

const MirrorStatus = z.object({
  ...Mirror.shape,
  figures: z
    .object({
      since: Time.nullable(),
      manifestHits: Count.describe('Served from here'),
      manifestMisses: Count.describe('Fetched'),
      stale: Count.describe('Answers that may have been out of date, because the upstream gave none'),
      blobHits: Count,
      blobMisses: Count,
      savedBytes: Bytes.describe('Bytes of blobs that clients got without asking the upstream'),
      upstreamBytes: Bytes.describe('Bytes that the upstream sent'),
      requests: Count.describe('Requests to the upstream'),
      meanLatencyMs: z.int().nullable().describe('Milliseconds until it began to answer'),
      failures: z.record(z.string(), Count).describe('By kind: absent, denied, limited, failed, refused'),
      evicted: Count,
      evictedBytes: Bytes,
    })
    .describe('Counted by all processes together, to ten seconds'),
  rate: z
    .object({ limit: Count.nullable(), remaining: Count.nullable(), at: Time })
    .nullable()
    .describe('What the upstream said last about our quota there'),
  size: z.object({
    repositories: Count,
    manifests: Count,
    logicalBytes: Bytes.describe('Bytes with each blob once a repository'),
    bytes: Bytes.nullable().describe('Bytes with each blob once, as measured where there is a limit that may be near'),
    measuredAt: Time.nullable(),
  }),
})

const Failure = z.object({ at: Time, kind: z.string(), message: z.string() })

/** Mirrors: how they stand, and those that are not in the settings. */
export function mirrorEndpoints(admin: Administration): Endpoint[] {
  return [
    listEndpoint({
      path: '/mirrors',
      summary: 'Mirrors by prefix, and how they stand',
      item: MirrorStatus,
      page: ({ actor, query }) => admin.listMirrors(actor, query),
    }),
    endpoint({
      method: 'get',
      path: '/mirrors/*prefix',
      summary: 'A mirror with the last failures of its upstream',
      answer: z.object({ ...MirrorStatus.shape, lastFailures: z.array(Failure) }),
      handle: ({ actor, param }) => admin.showMirror(actor, param('prefix')),
    }),
    endpoint({
      method: 'post',
      path: '/mirrors',
      summary: 'Add a mirror; every process has it within seconds',
      body: z.strictObject({
        prefix: Prefix,
        url,
        ...optional,
        login: Login.optional(),
        overExisting: z
          .boolean()
          .default(false)
          .describe('Whether repositories that are there become copies, which cannot be pushed to'),
      }),
      status: 201,
      answer: Mirror,
      handle: ({ actor, body }) => admin.addMirror(actor, defined(body)),
    }),
    endpoint({
      method: 'patch',
      path: '/mirrors/*prefix',
      summary: 'Change a mirror that was added; null takes back what was set',
      body: z.strictObject({ url: url.optional(), ...nullish, login: Login.nullable().optional() }),
      answer: Mirror,
      handle: ({ actor, param, body }) => admin.changeMirror(actor, param('prefix'), defined(body)),
    }),
    endpoint({
      method: 'delete',
      path: '/mirrors/*prefix',
      summary: 'Remove a mirror that was added; its repositories stay, and can be pushed to',
      handle: ({ actor, param }) => admin.removeMirror(actor, param('prefix')),
    }),
    endpoint({
      method: 'post',
      path: '/mirror-tests',
      summary: 'Ask the upstream of a mirror, step by step, up to the first that fails',
      body: z.strictObject({
        prefix: Prefix,
        repository: z.string().min(1).max(255).optional().describe('A repository, by its name at the upstream'),
      }),
      answer: z.object({
        ok: z.boolean(),
        steps: z.array(z.object({ step: z.string(), ok: z.boolean(), message: z.string() })),
      }),
      async handle({ actor, body }) {
        const steps = await admin.testMirror(actor, body.prefix, body.repository)
        return { ok: steps.every(({ ok }) => ok), steps }
      },
    }),
  ]
}

type Defined<T> = { [K in keyof T]: Exclude<T[K], undefined> }

/** The same without what is undefined. */
function defined<T extends object>(body: T): Defined<T> {
  return Object.fromEntries(Object.entries(body).filter(([, value]) => value !== undefined)) as Defined<T>
}
