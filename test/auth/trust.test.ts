import assert from 'node:assert/strict'
import { test } from 'node:test'
import { judgeTrust, trustFault } from '../../src/auth/trust.ts'

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
