import { z } from 'zod'
import type { Administration } from '../../access/administration.ts'
import { type Endpoint, endpoint, listEndpoint } from './endpoint.ts'
import * as schemas from './schemas.ts'

/** Rules for tags. */
export function tagRuleEndpoints(admin: Administration): Endpoint[] {
  return [
    endpoint({
      method: 'post',
      path: '/tag-rules',
      summary: 'Make tags immutable, or let only some create, move and delete them',
      body: schemas.TagRule,
      status: 201,
      answer: z.object({ name: z.string() }),
      handle: ({ actor, body }) => {
        const { name, ...rule } = body
        return admin.addTagRule(actor, name === undefined ? rule : { ...rule, name })
      },
    }),
    listEndpoint({
      path: '/tag-rules',
      summary: 'Tag rules by name',
      item: z.object({
        ...schemas.TagRule.required().shape,
        createdAt: schemas.Time,
        createdBy: z.string().nullable(),
      }),
      page: ({ actor, query }) => admin.listTagRules(actor, query),
    }),
    endpoint({
      method: 'delete',
      path: '/tag-rules/:name',
      summary: 'Remove a tag rule',
      handle: ({ actor, param }) => admin.removeTagRule(actor, param('name')),
    }),
  ]
}
