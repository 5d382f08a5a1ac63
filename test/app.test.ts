import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createLocalApp } from '../src/app.ts'
import type { Administration } from '../src/access/administration.ts'
import type { Registry } from '../src/registry/registry.ts'

void test('an error outside a request is told once, and that a client left is not told at all', () => {
  const told: unknown[] = []
  const app = createLocalApp({
    registry: {} as Registry,
    administration: {} as Administration,
    version: '0',
    observe: () => undefined,
    onError: error => told.push(error),
  })
  const fault = new Error('a stream failed')
  app.emit('error', fault)
  app.emit('error', Object.assign(new Error('read'), { code: 'ECONNRESET' }))
  assert.deepEqual(told, [fault])
})
