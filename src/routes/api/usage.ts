import { z } from 'zod'
import type { Administration } from '../../access/administration.ts'
import type { QuotaKey } from '../../access/quota-admin.ts'
import { RegistryError } from '../../oci/errors.ts'
import { type Endpoint, endpoint, listEndpoint, pageQuery } from './endpoint.ts'
import * as schemas from './schemas.ts'

const EVERYTHING = '**'
const GROWTH_DAYS = 7

/** What repositories use, and limits on it. */
export function usageEndpoints(admin: Administration): Endpoint[] {
  return [
    listEndpoint({
      path: '/usage',
      summary: 'What repositories use, the largest first',
      query: z.strictObject({
        ...pageQuery.shape,
        pattern: schemas.Pattern.default(EVERYTHING),
        days: z.coerce
          .number()
          .int()
          .min(1)
          .max(3_650)
          .default(GROWTH_DAYS)
          .describe('Growth is against the figures of so many days ago'),
      }),
      item: schemas.Usage,
      page: ({ actor, query }) => admin.listUsage(actor, query, query),
    }),
    endpoint({
      method: 'get',
      path: '/usage/total',
      summary: 'What the whole registry uses',
      answer: schemas.TotalUsage,
      handle: ({ actor }) => admin.totalUsage(actor),
    }),
    listEndpoint({
      path: '/quotas',
      summary: 'Quotas with their use, by pattern',
      item: schemas.Quota,
      page: ({ actor, query }) => admin.listQuotas(actor, query),
    }),
    endpoint({
      method: 'get',
      path: '/quotas/:measure/:pattern',
      summary: 'A quota with its use',
      answer: schemas.Quota,
      handle: ({ actor, param }) => admin.showQuota(actor, keyOf(param)),
    }),
    endpoint({
      method: 'put',
      path: '/quotas/:measure/:pattern',
      summary: 'Limit what the repositories of a pattern may use together; what is there is counted before the answer',
      body: z.strictObject({ limitBytes: z.int().min(0).max(schemas.LIMIT_MAX_BYTES) }),
      answer: schemas.Quota,
      handle: ({ actor, param, body }) => admin.setQuota(actor, keyOf(param), body.limitBytes),
    }),
    endpoint({
      method: 'delete',
      path: '/quotas/:measure/:pattern',
      summary: 'Remove a quota',
      handle: ({ actor, param }) => admin.deleteQuota(actor, keyOf(param)),
    }),
  ]
}

function keyOf(param: (name: string) => string): QuotaKey {
  const measure = param('measure')
  if (measure === 'logical' || measure === 'physical') return { pattern: param('pattern'), measure }
  throw new RegistryError('INVALID', { message: 'a quota is on logical or on physical bytes' })
}
