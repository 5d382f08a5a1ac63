import type { Administration } from '../access/administration.ts'
import type { Registry } from '../registry/registry.ts'
import { openApiDocument } from '../routes/api/openapi.ts'
import { administrationEndpoints } from '../routes/api/routes.ts'
import { VERSION } from '../version.ts'

export const API_HELP = 'berth api: prints the OpenAPI document of the administration, which docs/openapi.json keeps.\n'

/** The OpenAPI document as it is kept in docs/openapi.json. */
export function apiDocument(): string {
  // Only what the endpoints declare is read; none of them is called.
  const endpoints = administrationEndpoints({} as Administration, {} as Registry)
  return `${JSON.stringify(openApiDocument(endpoints, VERSION), null, 2)}\n`
}
