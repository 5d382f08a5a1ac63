import { z } from 'zod'
import type { Administration } from '../../access/administration.ts'
import { DUE_KINDS } from '../../access/collection-admin.ts'
import { type Endpoint, endpoint, listEndpoint, pageQuery } from './endpoint.ts'
import * as schemas from './schemas.ts'

const started = z.object({ run: z.int().describe('The number of the run; of the one under way, where there is one') })

/** Collection and verification of what is stored. */
export function collectionEndpoints(admin: Administration): Endpoint[] {
  return [
    endpoint({
      method: 'post',
      path: '/collection/runs',
      summary: 'Collect now what the collector would take in time',
      status: 201,
      answer: started,
      handle: async ({ actor }) => ({ run: await admin.startCollection(actor) }),
    }),
    endpoint({
      method: 'get',
      path: '/collection',
      summary: 'The last collection that was asked for, and what waits for the collector',
      answer: z.object({ run: schemas.Run, queue: schemas.CollectionQueue }),
      handle: ({ actor }) => admin.collectionStatus(actor),
    }),
    listEndpoint({
      path: '/collection/due',
      summary: 'What a collection would take now, of one kind, and why',
      query: z.strictObject({ ...pageQuery.shape, kind: z.enum(DUE_KINDS) }),
      item: schemas.Due,
      page: ({ actor, query }) => admin.listCollectable(actor, query.kind, query),
    }),
    endpoint({
      method: 'post',
      path: '/verification/runs',
      summary: 'Read all stored bytes again and compare them with their digests',
      status: 201,
      answer: started,
      handle: async ({ actor }) => ({ run: await admin.startVerification(actor) }),
    }),
    endpoint({
      method: 'get',
      path: '/verification',
      summary: 'The last verification, and how many blobs are damaged now',
      answer: z.object({ run: schemas.Run, damaged: z.int() }),
      handle: ({ actor }) => admin.verificationStatus(actor),
    }),
    listEndpoint({
      path: '/verification/damaged',
      summary: 'Blobs that are damaged or missing, out of sight until they are pushed again',
      item: schemas.Damaged,
      page: ({ actor, query }) => admin.listDamaged(actor, query),
    }),
  ]
}
