import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { after, before, test } from 'node:test'
import jwt from 'jsonwebtoken'
import { ciAuthenticator } from '../../src/access/ci-login.ts'
import { createIssuerFetch, IssuerFault } from '../../src/access/issuer-fetch.ts'
import { IssuerKeys, discovery } from '../../src/access/issuer-keys.ts'
import type { Verdict } from '../../src/access/authenticator.ts'
import { insertPrincipal } from '../../src/metadata/principals.ts'
import { insertTrustRule } from '../../src/metadata/trust-rules.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { startIssuer, type TestIssuer } from '../support/issuer.ts'

const SOURCE = { client: '192.0.2.1', requestId: 'r' }
const GITHUB = {
  sub: 'repo:octo-org/octo-repo:ref:refs/heads/main',
  aud: 'registry.example',
  repository: 'octo-org/octo-repo',
  repository_id: '74',
  repository_owner: 'octo-org',
  repository_owner_id: '65',
  event_name: 'push',
  sha: 'c0ffee',
  run_id: '123',
}

let database: TestDatabase
let issuer: TestIssuer
let present: (token: string, name?: string) => Promise<Verdict>

before(async () => {
  database = await withDatabase()
  issuer = await startIssuer()
  const keys = new IssuerKeys(discovery(createIssuerFetch({ allowPrivate: true })), Date.now)
  const authenticator = ciAuthenticator(database.db, keys, Date.now)
  present = async (password, name = 'job') => await authenticator.check({ name, password }, SOURCE)
  await addRule('octo', { repository_id: 74, repository_owner: 'octo-org' }, false)
  await addRule('once', { project_id: 22 }, true)
})

after(async () => {
  await issuer.close()
  await database.close()
})

async function addRule(name: string, claims: Record<string, number | string>, singleUse: boolean): Promise<void> {
  await database.db.transaction(async tx => {
    const principal = await insertPrincipal(tx, { kind: 'ci', name: `ci+${name}`, createdBy: 'test' })
    assert.ok(principal !== undefined)
    await insertTrustRule(tx, {
      principal_id: principal,
      name,
      issuer: issuer.url,
      audience: 'registry.example',
      claims,
      single_use: singleUse,
      allow_pull_request_target: false,
      session_seconds: 600,
      created_by: 'test',
    })
  })
}

const nameOf = (verdict: Verdict): string =>
  verdict !== undefined && 'identity' in verdict ? verdict.identity.name : reasonOf(verdict)
const reasonOf = (verdict: Verdict): string => (verdict !== undefined && 'refused' in verdict ? verdict.refused : '')

test('a GitHub job logs in with its identity token and is known by where it comes from (OpenID Connect Core 2)', async () => {
  for (const sub of [GITHUB.sub, 'repo:octo-org@65/octo-repo@74:ref:refs/heads/main']) {
    const verdict = await present(issuer.sign({ ...GITHUB, sub }))
    assert.ok(verdict !== undefined && 'identity' in verdict, reasonOf(verdict))
    assert.equal(verdict.identity.name, 'ci+octo')
    assert.equal(verdict.identity.provenance?.['sha'], 'c0ffee')
    assert.equal(verdict.refreshMs, 600_000)
  }
})

test('what is kept of where a job comes from can be stored, also where it is cut (RFC 7493 section 2.1)', async () => {
  const verdict = await present(issuer.sign({ ...GITHUB, ref: `${'r'.repeat(499)}😀`, actor: 'a\0b' }))
  assert.ok(verdict !== undefined && 'identity' in verdict, reasonOf(verdict))
  const { ref, actor } = verdict.identity.provenance ?? {}
  assert.deepEqual([ref, actor], [`${'r'.repeat(499)}\ufffd`, 'a\ufffdb'])
})

test('a job that a rule does not mean is refused with what its token says', async () => {
  const rows: readonly (readonly [object, RegExp])[] = [
    [{ repository_id: '75' }, /repository_id is "75"/],
    [{ repository_owner: 'renamed' }, /repository_owner is "renamed"/],
    [{ aud: 'elsewhere.example' }, /aud is "elsewhere.example"/],
    [{ aud: ['registry.example', 'elsewhere.example'] }, /aud is/],
    [{ event_name: 'pull_request_target' }, /event_name is "pull_request_target"/],
  ]
  for (const [claims, reason] of rows)
    assert.match(reasonOf(await present(issuer.sign({ ...GITHUB, ...claims }))), reason)
})

test('a rule that wants less does not take the jobs of one that wants more, and a login that names a rule gets it', async () => {
  const job = { repository_owner_id: '66', repository_id: '75', environment: 'production' }
  await addRule('owner', { repository_owner_id: 66 }, false)
  await addRule('deploy', { repository_owner_id: 66, environment: 'production' }, false)
  await addRule('other', { repository_owner_id: 66, repository_id: 75 }, false)
  const token = (claims: object): string => issuer.sign({ aud: 'registry.example', ...job, ...claims })
  assert.equal(nameOf(await present(token({ repository_id: '76' }))), 'ci+deploy')
  assert.equal(nameOf(await present(token({ environment: 'test', repository_id: '76' }))), 'ci+owner')
  // As many claims: the older rule.
  assert.equal(nameOf(await present(token({}))), 'ci+deploy')
  for (const name of ['other', 'ci+other']) assert.equal(nameOf(await present(token({}), name)), 'ci+other')
  assert.equal(nameOf(await present(token({}), 'owner')), 'ci+owner')
  const reason = reasonOf(await present(token({ repository_id: '76' }), 'other'))
  assert.match(reason, /the trust rule other, .*repository_id is "76"/)
  assert.doesNotMatch(reason, /owner:|deploy:/)
})

test('a token for one use is good for one login, also when shown twice at once (RFC 7519 section 4.1.7)', async () => {
  const token = issuer.sign({ aud: 'registry.example', project_id: '22', jti: 'a' })
  const verdicts = await Promise.all([present(token), present(token)])
  assert.equal(verdicts.filter(verdict => verdict !== undefined && 'identity' in verdict).length, 1)
  assert.match(reasonOf(await present(issuer.sign({ aud: 'registry.example', project_id: '22' }))), /no jti/)
})

test('forged and stale identity tokens are refused (RFC 8725 section 2)', async () => {
  const now = Math.floor(Date.now() / 1000)
  const claims = { ...GITHUB, iss: issuer.url, exp: now + 300 }
  const pem = issuer.publicKey.export({ type: 'spki', format: 'pem' }).toString()
  const header = Buffer.from('{"alg":"HS256","kid":"one"}').toString('base64url')
  const body = Buffer.from(JSON.stringify(claims)).toString('base64url')
  const mac = createHmac('sha256', pem).update(`${header}.${body}`).digest('base64url')
  const other = await startIssuer()
  try {
    const rows: Readonly<Record<string, string>> = {
      none: jwt.sign(claims, '', { algorithm: 'none', keyid: 'one' }),
      'HS256 with the public key': `${header}.${body}.${mac}`,
      'a foreign key with a known kid': other.sign({ ...GITHUB, iss: issuer.url }),
      expired: issuer.sign({ ...GITHUB, exp: now - 60 }),
      'not yet valid': issuer.sign({ ...GITHUB, nbf: now + 120 }),
      'of the future': issuer.sign({ ...GITHUB, iat: now + 120 }),
      'a kid that is a path': issuer.sign(GITHUB, '../../one'),
    }
    for (const [what, token] of Object.entries(rows)) {
      const verdict = await present(token)
      assert.ok(verdict !== undefined && 'refused' in verdict, what)
    }
  } finally {
    await other.close()
  }
})

test('tokens with unknown keys do not make us ask the issuer each time', async () => {
  const before = issuer.asked()
  for (const kid of ['x', 'y', 'z']) await present(issuer.sign(GITHUB, kid))
  assert.ok(issuer.asked() - before <= 1)
})

test('an issuer that names another in its discovery document is not believed (OpenID Connect Discovery 4.3)', async () => {
  const liar = await startIssuer('https://issuer.example')
  try {
    const keys = new IssuerKeys(discovery(createIssuerFetch({ allowPrivate: true })), Date.now)
    await assert.rejects(keys.find(liar.url, 'one'), IssuerFault)
  } finally {
    await liar.close()
  }
})

test('no issuer makes us ask our own network (OWASP server-side request forgery)', async () => {
  const fetch = createIssuerFetch({ allowPrivate: false })
  const urls = [
    'http://issuer.example/',
    'https://127.0.0.1/',
    'https://[::1]/',
    'https://[::ffff:10.0.0.1]/',
    'https://169.254.169.254/',
    'https://localhost/',
  ]
  for (const url of urls) await assert.rejects(fetch(url), IssuerFault, url)
})
