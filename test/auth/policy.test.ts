import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Action, Identity } from '../../src/auth/identity.ts'
import { type Grant, decide, grantText, implies, mayAdminister } from '../../src/auth/policy.ts'

const ALICE: Identity = { kind: 'user', name: 'alice', principalId: 1, epoch: 1 }
const grant = (id: number, pattern: string, ...actions: Action[]): Grant => ({
  id,
  subject: 'principal',
  subjectName: 'alice',
  pattern,
  actions,
})

test('admin includes everything, push includes pull, and nothing else includes another', () => {
  const rows: readonly (readonly [Action, readonly Action[]])[] = [
    ['pull', ['pull']],
    ['push', ['pull', 'push']],
    ['delete', ['delete']],
    ['admin', ['pull', 'push', 'delete', 'admin']],
  ]
  for (const [has, allowed] of rows) {
    for (const action of ['pull', 'push', 'delete', 'admin'] as const) {
      assert.equal(implies([has], action), allowed.includes(action), `${has} and ${action}`)
    }
  }
})

test('what no grant allows is refused, and the reason says so', () => {
  const decision = decide(ALICE, [grant(1, 'team/**', 'pull')], 'push', 'team/app')
  assert.equal(decision.allowed, false)
  assert.match(decision.reason, /no grant to user alice allows push on team\/app/)
  assert.equal(decide(ALICE, [], 'pull', 'team/app').allowed, false)
})

test('the decision names the grant that decided', () => {
  const decision = decide(ALICE, [grant(1, 'other/**', 'admin'), grant(2, 'team/**', 'push')], 'pull', 'team/app')
  assert.equal(decision.grant?.id, 2)
  assert.match(decision.reason, /grant 2 \(push on team\/\*\* to alice\)/)
})

test('a scope narrows what was granted and never widens it', () => {
  const narrowed: Identity = { ...ALICE, scopes: [{ pattern: '**', actions: ['pull', 'delete'] }] }
  const grants = [grant(1, 'team/**', 'push')]
  const allowed = (action: Action, name: string): boolean => decide(narrowed, grants, action, name).allowed
  assert.deepEqual(
    [allowed('pull', 'team/a'), allowed('push', 'team/a'), allowed('delete', 'team/a'), allowed('pull', 'x')],
    [true, false, false, false],
  )
  assert.equal(decide({ ...ALICE, scopes: [] }, grants, 'pull', 'team/a').allowed, false)
})

test('access is managed only for what lies wholly within the pattern administered, by grant and by scope', () => {
  const grants = [grant(1, 'team/**', 'admin')]
  for (const [pattern, may] of [
    ['team/app', true],
    ['team/*', true],
    ['team/**', true],
    ['team', false],
    ['*/app', false],
    ['**', false],
  ] as const) {
    assert.equal(mayAdminister(ALICE, grants, pattern), may, pattern)
  }
  const narrowed: Identity = { ...ALICE, scopes: [{ pattern: 'team/app', actions: ['admin'] }] }
  assert.equal(mayAdminister(narrowed, grants, 'team/app'), true)
  assert.equal(mayAdminister(narrowed, grants, 'team/**'), false)
  assert.equal(mayAdminister({ ...ALICE, scopes: [{ pattern: '**', actions: ['push'] }] }, grants, 'team/app'), false)
  assert.equal(mayAdminister(ALICE, [grant(2, '**', 'push', 'delete')], 'team/app'), false)
})

test('the administrator of the machine may do everything', () => {
  const local: Identity = { kind: 'local', name: 'local' }
  assert.equal(decide(local, [], 'delete', 'any').allowed, true)
  assert.equal(mayAdminister(local, [], '**'), true)
})

test('a grant in words says to whom', () => {
  const text = (subject: Grant['subject'], subjectName?: string): string =>
    grantText({ id: 1, subject, pattern: 'a/**', actions: ['pull'], ...(subjectName ? { subjectName } : {}) })
  assert.equal(text('group', 'builders'), 'pull on a/** to group builders')
  assert.equal(text('authenticated'), 'pull on a/** to everyone who logged in')
  assert.equal(text('anonymous'), 'pull on a/** to everyone')
})
