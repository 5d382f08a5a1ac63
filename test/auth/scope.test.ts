import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseScopes, repositoryActions, scopeText } from '../../src/auth/scope.ts'

const texts = (...values: string[]): string[] => parseScopes(values).map(scopeText)

test('scopes come repeated or in one value with spaces (Distribution: token scope documentation)', () => {
  const both = ['repository:a/b:pull', 'repository:c:push,pull']
  assert.deepEqual(texts(...both), both)
  assert.deepEqual(texts(both.join(' ')), both)
  assert.deepEqual(texts(`  ${both.join('  ')} `), both)
})

test('the type ends at the first colon and the actions begin after the last: a name may hold a port', () => {
  assert.deepEqual(parseScopes(['repository:host:5000/a/b:pull']), [
    { type: 'repository', name: 'host:5000/a/b', actions: ['pull'] },
  ])
})

test('scopes for one resource are one, each action once', () => {
  assert.deepEqual(texts('repository:a:pull', 'repository:a:push,pull', 'repository(plugin):a:pull'), [
    'repository:a:pull,push',
  ])
})

test('what is malformed is left out beside what is not (containerd/containerd #4358)', () => {
  assert.deepEqual(texts('', 'repository', 'repository:a', ':a:pull', 'repository::pull', 'repository:a:pull'), [
    'repository:a:pull',
  ])
  assert.deepEqual(texts(`repository:${'a'.repeat(1_000)}:pull`, 'repository:a:pull'), ['repository:a:pull'])
})

test('no actions ask for nothing, and a star for all a client can use', () => {
  const [none] = parseScopes(['repository:a:'])
  assert.deepEqual(none && repositoryActions(none), [])
  const [all] = parseScopes(['repository:a:*'])
  assert.deepEqual(all && repositoryActions(all), ['pull', 'push', 'delete'])
  const [foreign] = parseScopes(['repository:a:admin,rewrite,pull'])
  assert.deepEqual(foreign && repositoryActions(foreign), ['pull'])
})

test('scopes beyond a hundred are not looked at', () => {
  const many = Array.from({ length: 150 }, (_, index) => `repository:r${index}:pull`)
  assert.equal(texts(many.join(' ')).length, 100)
})
