import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { chooseRule, judgeTrust, trustFault } from '../../src/auth/trust.ts'

const RULE = { issuer: 'https://gitlab.com', audience: 'a', claims: {}, allowPullRequestTarget: false }

test('values are equal within their type, ids as a number and as digits (RFC 7519 section 4)', () => {
  const rows: readonly (readonly [string | number | boolean, unknown, boolean])[] = [
    ['main', 'main', true],
    ['main', 'Main', false],
    [74, '74', true],
    ['74', 74, true],
    [74, '074', false],
    [74, 74.5, false],
    ['9007199254740993', 9007199254740992, false],
    [true, 'true', true],
    [true, 1, false],
    ['', undefined, false],
    ['a', ['a'], false],
  ]
  for (const [expected, actual, matches] of rows) {
    const verdict = judgeTrust({ ...RULE, claims: { x: expected } }, { iss: RULE.issuer, aud: 'a', x: actual })
    assert.equal(verdict.matches, matches, `${String(expected)} and ${JSON.stringify(actual)}`)
  }
})

test('a claim that every object inherits is no claim', () => {
  const rule = { ...RULE, claims: { constructor: 'x' } }
  const verdict = judgeTrust(rule, { iss: RULE.issuer, aud: 'a' })
  assert.equal(verdict.checks.at(-1)?.actual, undefined)
})

test('a rule that goes by names that can be taken over is refused with advice', () => {
  const github = 'https://token.actions.githubusercontent.com'
  assert.match(trustFault({ ...RULE, issuer: github, claims: { repository: 'a/b' } }) ?? '', /repository_id/)
  assert.equal(trustFault({ ...RULE, issuer: github, claims: { repository_id: 1 } }), undefined)
  assert.match(trustFault({ ...RULE, claims: { project_path: 'a/b' } }) ?? '', /project_id/)
  assert.match(trustFault({ ...RULE, audience: '*', claims: { project_id: 1 } }) ?? '', /audience/)
})

void suite('of the rules that fit an identity token', () => {
  const candidate = (name: string, claims: number, matches = true) => ({ name, claims, matches })
  const old = candidate('old', 1)
  const exact = candidate('exact', 2)
  const alsoExact = candidate('also-exact', 2)
  const other = candidate('other', 3, false)

  test('the one that the login names is taken, by its own name or that of its identity, or none', () => {
    for (const user of ['old', 'ci+old']) {
      assert.deepEqual(chooseRule([old, exact, other], user), { chosen: old, by: 'name', named: old })
    }
    assert.deepEqual(chooseRule([old, exact, other], 'other'), { chosen: undefined, by: 'name', named: other })
  })

  test('the one with the most claims is taken where the login names none, and of equal ones the oldest', () => {
    for (const user of ['ci', '', undefined, 'ci+', 'OLD']) {
      assert.deepEqual(chooseRule([old, exact, alsoExact, other], user), { chosen: exact, by: 'age' })
      assert.deepEqual(chooseRule([old, alsoExact, other], user), { chosen: alsoExact, by: 'claims' })
      assert.deepEqual(chooseRule([old, other], user), { chosen: old, by: 'only' })
      assert.deepEqual(chooseRule([other], user), { chosen: undefined, by: 'only' })
    }
  })
})
