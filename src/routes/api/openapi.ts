import { z } from 'zod'
import { API_PREFIX, type Endpoint } from './endpoint.ts'
import { Problem } from './schemas.ts'

/** The OpenAPI 3.1 document of the endpoints, made of the schemas that check their input. */
export function openApiDocument(endpoints: readonly Endpoint[], version: string): object {
  const paths: Record<string, Record<string, unknown>> = {}
  for (const declared of endpoints) {
    const path = `${API_PREFIX}${declared.path.replaceAll(/[:*]([A-Za-z]+)/g, '{$1}')}`
    const methods = (paths[path] ??= {})
    methods[declared.method] = operation(declared)
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Berth administration',
      version,
      description:
        'Users, robots, tokens, grants and keys of a registry; its repositories, what was deleted of them, and rules for tags.',
    },
    components: {
      securitySchemes: { password: { type: 'http', scheme: 'basic' }, token: { type: 'http', scheme: 'bearer' } },
      schemas: { Problem: schemaOf(Problem, 'output') },
    },
    security: [{ password: [] }, { token: [] }],
    paths,
  }
}

function operation(declared: Endpoint): object {
  const inPath = [...declared.path.matchAll(/[:*]([A-Za-z]+)/g)].map(match => ({
    name: match[1],
    in: 'path',
    required: true,
    schema: { type: 'string' },
  }))
  const inQuery = Object.entries(declared.query.shape).map(([name, schema]) => ({
    name,
    in: 'query',
    required: !(schema as z.ZodType).safeParse(undefined).success,
    schema: schemaOf(schema as z.ZodType, 'input'),
  }))
  const answer =
    declared.answer === undefined
      ? { description: 'Done' }
      : { description: 'Done', content: { 'application/json': { schema: schemaOf(declared.answer, 'output') } } }
  const problem = {
    description: 'Refused',
    content: { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } },
  }
  return {
    operationId: operationId(declared),
    summary: declared.summary,
    parameters: [...inPath, ...inQuery],
    ...(declared.body === undefined
      ? {}
      : {
          requestBody: {
            required: true,
            content: { 'application/json': { schema: schemaOf(declared.body, 'input') } },
          },
        }),
    responses: { [declared.status]: answer, default: problem },
  }
}

/** `getGroupsNameMembers`: what generated clients call it. */
function operationId({ method, path }: Endpoint): string {
  return method + path.replaceAll(/[/:*-]+([a-z])/g, (_, letter: string) => letter.toUpperCase())
}

function schemaOf(schema: z.ZodType, io: 'input' | 'output'): object {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io, unrepresentable: 'any' })
  return rest
}
