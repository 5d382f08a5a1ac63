import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, suite, test } from 'node:test'
import { apiDocument } from '../../../src/cli/api.ts'
import { type AccessServer, startAccessServer } from '../../support/access.ts'
import { ENDPOINTS } from '../../support/api.ts'

interface Operation {
  readonly operationId: string
  readonly summary: string
  readonly parameters: readonly { readonly name: string; readonly in: string }[]
  readonly responses: Readonly<Record<string, unknown>>
}
interface Document {
  readonly openapi: string
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
}

const KEPT = new URL('../../../docs/openapi.json', import.meta.url)

void suite('the OpenAPI document of the administration (OpenAPI 3.1.0)', () => {
  let server: AccessServer
  let served: Document

  before(async () => {
    server = await startAccessServer()
    served = (await (await fetch(`${server.url}/api/v1/openapi.json`)).json()) as Document
  })
  after(() => server.stop())

  test('docs/openapi.json is what `berth api` prints and what the server serves', () => {
    assert.equal(readFileSync(KEPT, 'utf8'), apiDocument())
    assert.deepEqual(served, JSON.parse(apiDocument()))
  })

  test('it describes every endpoint, with every parameter of its path', () => {
    const operations = Object.entries(served.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
    )
    assert.equal(operations.length, ENDPOINTS.length)
    assert.equal(new Set(operations.map(({ operation }) => operation.operationId)).size, operations.length)
    for (const { path, operation } of operations) {
      const inPath = operation.parameters.filter(parameter => parameter.in === 'path').map(({ name }) => name)
      assert.deepEqual(
        inPath,
        [...path.matchAll(/\{([a-z]+)\}/gi)].map(match => match[1]),
      )
      assert.ok(operation.summary.length > 5)
      assert.ok(Object.keys(operation.responses).includes('default'))
    }
  })

  test('every path that it describes is there: asked by nobody, it wants to know who asks', async () => {
    for (const [path, methods] of Object.entries(served.paths)) {
      for (const method of Object.keys(methods)) {
        const response = await fetch(`${server.url}${path.replaceAll(/[{}]/g, '')}`, { method: method.toUpperCase() })
        assert.equal(response.status, 401, `${method} ${path}`)
      }
    }
  })
})
