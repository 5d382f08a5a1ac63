import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { tokenAccess } from '../../src/access/request-access.ts'
import { ACTIONS, type Identity } from '../../src/auth/identity.ts'

const FOREIGN: Identity = { kind: 'foreign', name: 'stranger' }

void suite('what a token of another issuer allows (distribution, registry/auth/token: actionSet)', () => {
  const allowed = (...actions: string[]): string[] => {
    const access = tokenAccess(FOREIGN, [{ type: 'repository', name: 'team/app', actions }], true)
    return ACTIONS.filter(action => access.may(action, 'team/app'))
  }

  test('`*` is every action that Distribution knows, and never the right to administer', () => {
    assert.deepEqual(allowed('*'), ['pull', 'push', 'delete'])
    assert.deepEqual(allowed('*', 'admin'), ['pull', 'push', 'delete'])
    assert.deepEqual(allowed('admin'), [])
  })

  test('any other action stands for itself', () => {
    assert.deepEqual(allowed('push'), ['push'])
    assert.deepEqual(allowed('delete', 'pull'), ['pull', 'delete'])
  })

  test('only `*` on the catalog lists it', () => {
    const mayList = (...actions: string[]): boolean =>
      tokenAccess(FOREIGN, [{ type: 'registry', name: 'catalog', actions }], true).mayList
    assert.deepEqual([mayList('*'), mayList('pull'), mayList()], [true, false, false])
  })
})
