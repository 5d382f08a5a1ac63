import { z } from 'zod'
import { DUE_KINDS } from '../../access/collection-admin.ts'
import { ACTIONS } from '../../auth/identity.ts'

// What the API takes and gives. The OpenAPI document is made of these, so each says what it is for.

function quoted(input: unknown): string {
  return (JSON.stringify(input) ?? 'nothing').slice(0, 100)
}

export const Name = z.string().min(1).max(110).describe('A name: a-z 0-9 . _ @ -, beginning with a letter or digit')
export const Time = z.iso.datetime({ offset: true }).describe('A time, RFC 3339')
export const Pattern = z
  .string()
  .min(1)
  .max(255)
  .describe('A repository name in which * stands for a part of a component and ** for any number of components')
const ACTION_NAMES = `${ACTIONS.slice(0, -1).join(', ')} or ${ACTIONS.at(-1)}`
export const OneAction = z.enum(ACTIONS, { error: ({ input }) => `${quoted(input)} is no action: ${ACTION_NAMES} is` })
export const Actions = z
  .array(OneAction, `must be a list of actions: ${ACTION_NAMES}`)
  .min(1, `must name an action: ${ACTION_NAMES}`)
  .max(ACTIONS.length, 'must name each action once')
  .describe('push includes pull, admin includes everything')
export const PatternActionsList = z.array(z.strictObject({ pattern: Pattern, actions: Actions })).max(100)
export const Secret = z.string().describe('Shown this once')

const OVERLAP_MAX_SECONDS = 30 * 86_400
export const Overlap = z
  .int()
  .min(0)
  .max(OVERLAP_MAX_SECONDS)
  .default(3_600)
  .describe('For how many seconds the former secret stays good')

export const Principal = z.object({
  name: z.string(),
  kind: z.enum(['user', 'robot', 'ci']),
  active: z.boolean().describe('Neither disabled nor expired'),
  external: z.string().nullable().describe('Who proves it, such as htpasswd; null: this registry'),
  disabledAt: Time.nullable(),
  expiresAt: Time.nullable(),
  lastUsedAt: Time.nullable(),
  createdAt: Time,
  createdBy: z.string().nullable(),
})

export const Subject = z
  .discriminatedUnion(
    'kind',
    [
      z.strictObject({ kind: z.literal('principal'), name: z.string().min(1).max(110) }),
      z.strictObject({ kind: z.literal('group'), name: Name }),
      z.strictObject({ kind: z.literal('authenticated') }),
      z.strictObject({ kind: z.literal('anonymous') }),
    ],
    'must be a principal or group with its name, or authenticated, or anonymous',
  )
  .describe('To whom: a user, robot or CI identity, a group, everyone who logged in, or everyone')

export const Grant = z.object({
  id: z.int(),
  subject: Subject,
  pattern: Pattern,
  actions: Actions,
  createdAt: Time,
  createdBy: z.string().nullable(),
})

export const Token = z.object({
  name: z.string(),
  scopes: PatternActionsList.nullable().describe('What the token is narrowed to; null: all that its user may'),
  expiresAt: Time.nullable(),
  lastUsedAt: Time.nullable(),
  createdAt: Time,
  secrets: z.int().describe('How many of its secrets are live'),
})

export const TrustRule = z.strictObject({
  name: Name,
  issuer: z
    .url({ protocol: /^https?$/ })
    .max(500)
    .describe('Exactly as the tokens say it'),
  audience: z
    .string()
    .min(1)
    .max(500)
    .refine(text => !text.includes('*'), 'an audience is no pattern')
    .describe('What the tokens must be made for'),
  claims: z
    .record(z.string().min(1).max(100), z.union([z.string().max(1_000), z.number(), z.boolean()]))
    .refine(claims => Object.keys(claims).length > 0, 'name at least one claim, or every job of the issuer is trusted')
    .describe('Claims that must have exactly these values'),
  singleUse: z.boolean().default(false).describe('Whether an identity token is good for one login only'),
  allowPullRequestTarget: z.boolean().default(false),
  sessionSeconds: z.int().min(60).max(86_400).default(3_600).describe('How long a job may go on with its login'),
})

export const TrustExplanation = z.object({
  rule: z.string(),
  matches: z.boolean(),
  chosen: z.boolean().describe('Whether a login goes by this rule, of all rules of the issuer'),
  reason: z.string().describe('Why it is chosen or not'),
  checks: z.array(
    z.object({
      claim: z.string(),
      expected: z.string(),
      actual: z.string().optional().describe('Absent where the token does not say it'),
      matches: z.boolean(),
    }),
  ),
})

export const Key = z.object({
  kid: z.string(),
  state: z.enum(['next', 'signing', 'retiring']),
  signsFrom: Time,
  retiresAt: Time.nullable(),
})

export const Decision = z.object({
  allowed: z.boolean(),
  reason: z.string(),
  grant: z.object({ id: z.int(), subject: Subject, pattern: Pattern, actions: Actions }).optional(),
})

export const AuditEntry = z.object({
  id: z.int(),
  at: Time,
  kind: z.string(),
  outcome: z.enum(['ok', 'refused']),
  actor: z.string(),
  client: z.string().nullable(),
  requestId: z.string().nullable(),
  detail: z.record(z.string(), z.unknown()),
})

export const RepositoryName = z.string().min(1).max(255).describe('The name of a repository')
export const Tag = z.string().min(1).max(128)
export const Reference = z.string().min(1).max(200).describe('A tag, or a digest')

export const Repository = z.object({ id: z.int(), name: z.string(), createdAt: Time })
export const DeletedRepository = z.object({
  ...Repository.shape,
  deletedAt: Time,
  deletedBy: z.string().nullable(),
  keptUntil: Time.describe('Until then it can be brought back for sure'),
})
export const RepositoryDetails = z.object({
  ...Repository.shape,
  tags: z.int().describe('Counted up to 10000'),
  manifests: z.int().describe('Counted up to 10000'),
})

export const Undeleted = z.object({
  digest: z.string(),
  tags: z.array(z.string()).describe('Tags that point to it again'),
  manifests: z.array(z.string()).describe('Digests that can be pulled again'),
})

export const TagHistoryEntry = z.object({
  id: z.int(),
  at: Time,
  from: z.string().nullable().describe('Null: the tag was made'),
  to: z.string().nullable().describe('Null: the tag was removed'),
  by: z.string().nullable(),
  action: z.string().nullable().describe('push, delete, manifest-delete, undelete or rollback'),
})

export const TagRule = z.strictObject({
  name: Name.optional().describe('Shown to whoever is refused; rule- and a number without it'),
  pattern: Pattern,
  tags: z
    .string()
    .min(1)
    .max(200)
    .describe(
      'A glob in which * stands for any characters and ? for one, or a regular expression (RE2) between slashes',
    ),
  immutable: z.boolean().default(false).describe('Once there, the tag is neither moved nor deleted, by anybody'),
  protected: z.boolean().default(false).describe('Only the writers create, move and delete the tag'),
  mayExpire: z.boolean().default(false).describe('Retention may remove the tag all the same'),
  writers: z.array(z.string().min(1).max(120)).max(100).default([]).describe('Principals, and groups as group:NAME'),
})

export const StoreName = z.string().min(1).max(50).describe('filesystem or s3')

export const Store = z.object({
  name: StoreName,
  takesNewContent: z.boolean(),
  configured: z.boolean().describe('Where it is not, what lies in it cannot be read'),
  owner: z
    .enum(['ours', 'settling', 'unclaimed', 'foreign', 'contested', 'unknown'])
    .describe('Bytes are deleted where this is ours; settling is that, soon'),
  blobs: z.int(),
  bytes: z.int().describe('Of the blobs'),
  uploads: z.int().describe('Uploads under way'),
  trash: z.int().describe('Keys that wait for the end of their grace'),
})

export const StorageCopy = z.object({
  to: StoreName,
  state: z.enum(['running', 'done', 'incomplete', 'stopped']),
  foundBlobs: z.int(),
  foundBytes: z.int(),
  copiedBlobs: z.int(),
  copiedBytes: z.int(),
  leftBlobs: z.int(),
  leftBytes: z.int(),
  failedBlobs: z.int(),
  lastFailure: z.string().nullable(),
  atOnce: z.int(),
  bytesPerSecond: z.int().nullable(),
  requestedAt: Time,
  requestedBy: z.string(),
  endedAt: Time.nullable(),
})

const Bytes = z.int().describe('Bytes')

export const Usage = z.object({
  repository: z.string(),
  bytes: Bytes.describe('Bytes of blobs, each once, and of manifests'),
  blobBytes: Bytes,
  manifestBytes: Bytes,
  ownBytes: Bytes.describe('Bytes of blobs that no other repository uses'),
  sharedBytes: Bytes.describe('Bytes of blobs that others use too'),
  blobs: z.int(),
  manifests: z.int(),
  tags: z.int(),
  counted: z.boolean().describe('False after an upgrade until what was there before is counted: figures are too low'),
  growth: z
    .object({ bytes: Bytes, since: z.iso.date() })
    .nullable()
    .describe('Bytes more than on that day; null where they are not known'),
})

export const TotalUsage = z.object({
  repositories: z.int(),
  manifests: z.int(),
  tags: z.int(),
  logicalBytes: Bytes.describe('Bytes with each blob once a repository'),
  physicalBytes: Bytes.describe('Bytes as stored, trash included'),
  stores: z.array(z.object({ store: z.string(), blobs: z.int(), bytes: Bytes, trashBytes: Bytes })),
})

/** A pebibyte: what a sum of quotas can hold, and JSON. */
export const LIMIT_MAX_BYTES = 2 ** 50

export const Quota = z.object({
  pattern: Pattern,
  measure: z
    .enum(['logical', 'physical'])
    .describe('Whether a blob counts once for each repository, or once for all of the pattern'),
  limitBytes: Bytes,
  usedBytes: Bytes.describe('May exceed the limit, which can be set below what is there'),
  counted: z.boolean().describe('False while what was there before the quota is being counted'),
  createdAt: Time,
  createdBy: z.string().nullable(),
})

export const Problem = z
  .object({
    type: z.string(),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    code: z.string(),
    requestId: z.string(),
  })
  .describe('RFC 9457')

export const Run = z.object({
  run: z.int().describe('Counts the runs, from 1; 0 before the first'),
  state: z.enum(['never', 'requested', 'running', 'waiting', 'finished']),
  startedAt: Time.nullable(),
  finishedAt: Time.nullable(),
  failure: z.string().nullable().describe('Why its last turn ended early; it goes on from where it was'),
  progress: z.record(z.string(), z.number()).describe('What it did so far'),
})

export const CollectionQueue = z.object({
  due: z.int().describe('Manifests and links whose promise has ended'),
  oldestDueAt: Time.nullable(),
  unlinkedBlobs: z.int().describe('Blobs that lost a link'),
  trash: z.int().describe('Stored bytes that nothing names: how many keys'),
  trashBytes: z.int(),
  purgeable: z.int().describe('Of these, the keys whose grace is over'),
  purgeableBytes: z.int(),
  oldestPurgeableAt: Time.nullable(),
})

export const Due = z.object({
  kind: z.enum(DUE_KINDS),
  repository: z.string().nullable(),
  digest: z.string().nullable(),
  size: z.int().nullable().describe('Bytes, where they are known'),
  since: Time.describe('When what kept it ended'),
  reason: z.string(),
})

export const Damaged = z.object({
  digest: z.string(),
  size: z.int(),
  damagedAt: Time,
  repository: z.string().nullable().describe('One of the repositories that have it'),
})
