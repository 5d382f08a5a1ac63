import { z } from 'zod'
import { Name, Pattern, Time } from './schemas.ts'

const TagPattern = z
  .string()
  .min(1)
  .max(200)
  .describe('A glob of tags, or a regular expression (RE2) between slashes: v*, /v\\d+\\.\\d+/')
const tags = TagPattern.optional().describe('Only of tags of this pattern')
const Count = z.int().min(0).max(100_000)
const Seconds = z
  .int()
  .min(1)
  .max(3_650 * 86_400)

export const KeepRule = z
  .discriminatedUnion('keep', [
    z.strictObject({ keep: z.literal('newest'), count: Count, tags }),
    z.strictObject({ keep: z.literal('versions'), count: Count, tags }),
    z.strictObject({ keep: z.literal('pushed'), withinSeconds: Seconds, tags }),
    z.strictObject({ keep: z.literal('pulled'), withinSeconds: Seconds, tags }),
    z.strictObject({ keep: z.literal('all'), tags }),
  ])
  .describe(
    'What stays: the tags pushed last, those of the highest semantic versions, those pushed or pulled no longer ago, or all',
  )

export const Policy = z.strictObject({
  pattern: Pattern.describe('Which repositories'),
  tags: z.array(TagPattern).min(1).max(20).default(['*']).describe('Which tags it is about; others are left alone'),
  rules: z.array(KeepRule).min(1).max(50).describe('What any of them keeps stays; what none keeps goes'),
  untagged: z.boolean().default(false).describe('Whether it is about manifests without a tag as well'),
  maxShare: z
    .int()
    .min(0)
    .max(100)
    .default(30)
    .describe('A repository that would lose more of its tags than this, in per cent, is held until somebody confirms'),
  schedule: z.string().max(100).nullable().default(null).describe('Five fields of cron'),
  timeZone: z.string().max(100).default('UTC').describe('An IANA name'),
})

export const PolicyInfo = z.object({
  name: Name,
  ...Policy.shape,
  nextRunAt: Time.nullable(),
  createdAt: Time,
  createdBy: z.string().nullable(),
})

export const Run = z.object({
  id: z.int(),
  policy: z.string(),
  goal: z.enum(['plan', 'run']),
  state: z
    .enum(['waiting', 'asks', 'done', 'failed'])
    .describe('asks: the plan is there, and what is held of it waits to be confirmed'),
  askedBy: z.string(),
  createdAt: Time,
  finishedAt: Time.nullable(),
  repositories: z.int(),
  tags: z.int(),
  going: z.int().describe('Tags that go by the plan'),
  untagged: z.int().describe('Manifests without a tag that go by the plan'),
  removed: z.int(),
  spared: z.int().describe('What was to go and stayed, because it had changed since the plan'),
  held: z.int().describe('Repositories that wait for somebody to confirm'),
  error: z.string().nullable(),
})

export const RunRepository = z.object({
  repository: z.string(),
  tags: z.int(),
  going: z.int(),
  untagged: z.int(),
  removed: z.int(),
  spared: z.int(),
  held: z.boolean(),
})

export const Item = z.object({
  repository: z.string(),
  name: z.string().describe('A tag; or the digest of a manifest without one'),
  digest: z.string(),
  goes: z.boolean(),
  rule: z.int().nullable().describe('The place of the rule that keeps it, from 1'),
  reason: z.string(),
  outcome: z.enum(['removed', 'spared']).nullable(),
})

export const TagPulls = z.object({ tag: z.string(), pulls: z.int(), lastPulledAt: Time.nullable() })
