import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { PASSWORD, basic, fetchToken } from '../support/access.ts'
import { type AccessApp, startAccessApp } from '../support/access-app.ts'
import { OCI_MANIFEST, digestOf, imageOf } from '../support/client.ts'
import { type TestIssuer, startIssuer } from '../support/issuer.ts'

let app: AccessApp
let issuer: TestIssuer

before(async () => {
  app = await startAccessApp({ allowPrivateIssuers: true })
  issuer = await startIssuer()
})
after(async () => {
  await issuer.close()
  await app.close()
})

test('what a CI job pushes says for good which commit and run it came from (SLSA v1.0, "Provenance")', async () => {
  const rule = await fetch(`${app.url}/api/v1/trust-rules`, {
    method: 'POST',
    headers: { Authorization: basic('admin', PASSWORD), 'Content-Type': 'application/json' },
    body: JSON.stringify({
      name: 'octo',
      issuer: issuer.url,
      audience: 'registry.example',
      claims: { repository_id: 74, repository_owner_id: 65 },
      grants: [{ pattern: 'octo/**', actions: ['pull', 'push'] }],
    }),
  })
  assert.equal(rule.status, 201, await rule.text())
  const identity = issuer.sign({
    sub: 'repo:octo-org/octo-repo:ref:refs/heads/main',
    aud: 'registry.example',
    repository: 'octo-org/octo-repo',
    repository_id: '74',
    repository_owner: 'octo-org',
    repository_owner_id: '65',
    event_name: 'push',
    sha: 'c0ffee',
    run_id: '123',
  })
  const token = await fetchToken(app.url, ['repository:octo/app:pull,push'], basic('ci', identity))
  const Authorization = `Bearer ${token}`
  const blob = await fetch(`${app.url}/v2/octo/app/blobs/uploads/?digest=${digestOf('{}')}`, {
    method: 'POST',
    headers: { Authorization },
    body: '{}',
  })
  assert.equal(blob.status, 201, await blob.text())
  const put = await fetch(`${app.url}/v2/octo/app/manifests/v1`, {
    method: 'PUT',
    headers: { Authorization, 'Content-Type': OCI_MANIFEST },
    body: JSON.stringify(imageOf()),
  })
  assert.equal(put.status, 201, await put.text())
  const [row] = await app.db.query<{ pushed_by: string; provenance: Record<string, string> }>(
    'select pushed_by, provenance from manifest',
  )
  assert.equal(row?.pushed_by, 'ci+octo')
  assert.equal(row?.provenance['sha'], 'c0ffee')
  assert.equal(row?.provenance['run'], '123')
})
