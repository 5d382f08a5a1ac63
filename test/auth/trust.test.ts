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

void suite('a rule that goes by names that can be taken over (GitHub: "Repo-jacking"; GitLab: path reuse)', () => {
  const faultOf = (issuer: string, claims: Readonly<Record<string, string | number | boolean>>): string =>
    trustFault({ ...RULE, issuer, claims }) ?? ''
  const GITHUB = [
    'https://token.actions.githubusercontent.com',
    'https://token.actions.githubusercontent.com/octo-enterprise',
    'https://token.actions.octo.ghe.com',
    'https://github.example/_services/token',
    'https://proxy.example',
  ]
  const GITLAB = ['https://gitlab.com', 'https://gitlab.example', 'https://git.gitlab.example', 'https://code.example']

  test('is refused with advice wherever GitHub runs', () => {
    for (const issuer of GITHUB) {
      for (const claims of [
        { repository: 'a/b' },
        { repository_owner: 'a', ref: 'refs/heads/main' },
        { sub: 'repo:a/b:ref:refs/heads/main' },
        { job_workflow_ref: 'a/b/.github/workflows/c.yml@refs/heads/main' },
        { workflow_ref: 'a/b/.github/workflows/c.yml@refs/heads/main' },
      ]) {
        assert.match(
          faultOf(issuer, claims),
          /repository_id or repository_owner_id/,
          `${issuer} ${JSON.stringify(claims)}`,
        )
        assert.equal(faultOf(issuer, { ...claims, repository_id: 1 }), '')
        assert.equal(faultOf(issuer, { ...claims, repository_owner_id: '7' }), '')
      }
    }
  })

  test('is refused with advice wherever GitLab runs', () => {
    for (const issuer of GITLAB) {
      for (const claims of [
        { project_path: 'a/b' },
        { namespace_path: 'a', ref_protected: true },
        { job_project_path: 'a/b' },
        { sub: 'project_path:a/b:ref_type:branch:ref:main' },
        { ci_config_ref_uri: 'gitlab.example/a/b//.gitlab-ci.yml@refs/heads/main' },
        { user_login: 'deployer' },
      ]) {
        assert.match(faultOf(issuer, claims), /project_id or namespace_id/, `${issuer} ${JSON.stringify(claims)}`)
        for (const id of ['project_id', 'namespace_id']) assert.equal(faultOf(issuer, { ...claims, [id]: 1 }), '')
      }
    }
  })

  test('is refused where it names nothing but what every project has, at an address that is known to be of one of them', () => {
    for (const issuer of GITHUB.slice(0, -1)) assert.match(faultOf(issuer, { ref: 'refs/heads/main' }), /repository_id/)
    for (const issuer of GITLAB.slice(0, -1)) assert.match(faultOf(issuer, { ref_protected: true }), /project_id/)
  })

  test('is none where another issuer has a say over its own names; the audience is exact in any case', () => {
    assert.equal(faultOf('https://issuer.example', { sub: 'system:serviceaccount:ci:builder' }), '')
    assert.match(trustFault({ ...RULE, audience: '*', claims: { project_id: 1 } }) ?? '', /audience/)
    assert.match(trustFault({ ...RULE, audience: '', claims: { project_id: 1 } }) ?? '', /audience/)
  })
})

void suite('jobs of GitLab that a rule means, and those it does not (GitLab: "ID token payload")', () => {
  const rule = { ...RULE, claims: { project_id: 42, ref_protected: true, environment: 'production' } }
  const job = {
    iss: RULE.issuer,
    aud: 'a',
    project_id: '42',
    project_path: 'team/web',
    namespace_id: '7',
    ref: 'main',
    ref_type: 'branch',
    ref_protected: 'true',
    environment: 'production',
    environment_protected: 'true',
  }
  const cases: Readonly<Record<string, readonly [more: Readonly<Record<string, unknown>>, missed: readonly string[]]>> =
    {
      'one on the protected branch, for the environment': [{}, []],
      'one of a fork, which has the id of its own project': [
        { project_id: '43', project_path: 'mallory/web' },
        ['project_id'],
      ],
      'one of a project that took the path over': [{ project_id: '99' }, ['project_id']],
      'one on a branch that anybody may push to': [{ ref: 'topic', ref_protected: 'false' }, ['ref_protected']],
      'one for another environment': [{ environment: 'review/topic' }, ['environment']],
      'one for no environment': [{ environment: undefined }, ['environment']],
      'one on a branch that only calls itself protected': [{ ref_protected: 'TRUE' }, ['ref_protected']],
    }
  for (const [what, [more, missed]] of Object.entries(cases)) {
    test(`${what}: ${missed.length === 0 ? 'it is let in' : `it is refused by ${missed.join()}`}`, () => {
      const { matches, checks } = judgeTrust(rule, { ...job, ...more })
      const wrong = checks.filter(check => !check.matches).map(check => check.claim)
      assert.deepEqual([matches, wrong], [missed.length === 0, missed])
    })
  }
})

test('a job on pull_request_target is let in only by a rule that says so, and by it like any other (GitHub: "pull_request_target")', () => {
  const rule = { ...RULE, claims: { repository_id: 74 } }
  const job = { iss: RULE.issuer, aud: 'a', repository_id: '74', event_name: 'pull_request_target' }
  assert.equal(judgeTrust(rule, job).matches, false)
  assert.equal(judgeTrust({ ...rule, allowPullRequestTarget: true }, job).matches, true)
  assert.equal(judgeTrust({ ...rule, allowPullRequestTarget: true }, { ...job, repository_id: '75' }).matches, false)
  for (const event of ['push', 'pull_request']) {
    assert.equal(judgeTrust(rule, { ...job, event_name: event }).matches, true)
  }
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
