import { z } from 'zod'
import type { Administration } from '../../access/administration.ts'
import { type Endpoint, endpoint } from './endpoint.ts'
import * as schemas from './schemas.ts'

const AT_ONCE_MAX = 64
const AT_ONCE = 4

/** Stores, whose they are, and the moving of content from one to another. */
export function storageEndpoints(admin: Administration): Endpoint[] {
  return [
    endpoint({
      method: 'get',
      path: '/storage',
      summary: 'Stores that are configured or named by the index, and what lies in them',
      answer: z.object({ items: z.array(schemas.Store) }),
      handle: async ({ actor }) => ({ items: await admin.listStores(actor) }),
    }),
    endpoint({
      method: 'post',
      path: '/storage/adoption',
      summary: 'Make every store that is configured this registry’s, so that it deletes in them',
      handle: ({ actor }) => admin.adoptStorage(actor),
    }),
    endpoint({
      method: 'get',
      path: '/storage/copy/plan',
      summary: 'What a move to a store would copy',
      query: z.strictObject({ to: schemas.StoreName }),
      answer: z.object({ blobs: z.int(), bytes: z.int() }),
      handle: ({ actor, query }) => admin.planStorageCopy(actor, query.to),
    }),
    endpoint({
      method: 'post',
      path: '/storage/copy',
      summary: 'Move all content to a store while the registry runs; goes on by itself after a crash',
      body: z.strictObject({
        to: schemas.StoreName,
        atOnce: z.int().min(1).max(AT_ONCE_MAX).default(AT_ONCE).describe('Blobs that are copied at once'),
        bytesPerSecond: z
          .int()
          .min(1)
          .max(2 ** 50)
          .optional()
          .describe('Bound for all of them together'),
      }),
      status: 201,
      answer: schemas.StorageCopy,
      handle: ({ actor, body }) => admin.startStorageCopy(actor, body),
    }),
    endpoint({
      method: 'get',
      path: '/storage/copy',
      summary: 'The move that was asked for last',
      answer: schemas.StorageCopy,
      handle: ({ actor }) => admin.getStorageCopy(actor),
    }),
    endpoint({
      method: 'delete',
      path: '/storage/copy',
      summary: 'End the move that is under way; what was moved stays moved',
      handle: ({ actor }) => admin.stopStorageCopy(actor),
    }),
  ]
}
