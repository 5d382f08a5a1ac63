import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { after, before, suite, test } from 'node:test'
import { PASSWORD, basic, fetchToken } from '../support/access.ts'
import { type AccessApp, startAccessApp } from '../support/access-app.ts'

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
const CONFIG = '{}'
const DIGEST = `sha256:${createHash('sha256').update(CONFIG).digest('hex')}`
const config = { mediaType: 'application/vnd.oci.image.config.v1+json', digest: DIGEST, size: 2 }
const IMAGE = JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST, config, layers: [] })
const ADMIN = basic('admin', PASSWORD)

void suite('a repository that was deleted and made again under its name is another (goharbor/harbor #22900)', () => {
  let app: AccessApp
  let former: string
  let location: string

  before(async () => {
    app = await startAccessApp()
    await fill('team/app')
    former = `Bearer ${await fetchToken(app.url, ['repository:team/app:pull,push,delete'], ADMIN)}`
    assert.equal((await ask(former, 'GET', '/v2/team/app/manifests/1')).status, 200)
    location = (await ask(former, 'POST', '/v2/team/app/blobs/uploads/')).headers.get('location') ?? ''
    await app.db.query(`update repository set deleted_at = now() where name = 'team/app'`)
    await fill('team/app')
  })
  after(() => app.close())

  async function ask(
    authorization: string | undefined,
    method: string,
    path: string,
    body?: string,
  ): Promise<Response> {
    const headers: Record<string, string> = { 'Content-Type': MANIFEST }
    if (authorization !== undefined) headers['Authorization'] = authorization
    const response = await fetch(`${app.url}${path}`, { method, headers, ...(body === undefined ? {} : { body }) })
    await response.arrayBuffer()
    return response
  }

  async function administer(method: string, path: string, body?: object): Promise<Readonly<Record<string, unknown>>> {
    const headers = { Authorization: ADMIN, 'Content-Type': 'application/json' }
    const init = body === undefined ? {} : { body: JSON.stringify(body) }
    const response = await fetch(`${app.url}/api/v1${path}`, { method, headers, ...init })
    const text = await response.text()
    assert.ok(response.ok, text)
    return text === '' ? {} : (JSON.parse(text) as Record<string, unknown>)
  }

  async function fill(name: string): Promise<void> {
    assert.equal((await ask(ADMIN, 'POST', `/v2/${name}/blobs/uploads/?digest=${DIGEST}`, CONFIG)).status, 201)
    assert.equal((await ask(ADMIN, 'PUT', `/v2/${name}/manifests/1`, IMAGE)).status, 201)
  }

  const calls: readonly (readonly [method: string, path: string, body?: string])[] = [
    ['GET', '/v2/team/app/manifests/1'],
    ['HEAD', '/v2/team/app/manifests/1'],
    ['GET', `/v2/team/app/blobs/${DIGEST}`],
    ['HEAD', `/v2/team/app/blobs/${DIGEST}`],
    ['GET', '/v2/team/app/tags/list'],
    ['GET', `/v2/team/app/referrers/${DIGEST}`],
    ['PUT', '/v2/team/app/manifests/2', IMAGE],
    ['DELETE', '/v2/team/app/manifests/1'],
    ['DELETE', `/v2/team/app/blobs/${DIGEST}`],
    ['POST', '/v2/team/app/blobs/uploads/'],
  ]
  for (const [method, path, body] of calls) {
    test(`a token for the former one is refused: ${method} ${path.replace(DIGEST, 'DIGEST')}`, async () => {
      const response = await ask(former, method, path, body)
      assert.equal(response.status, 401)
      // RFC 9110 section 15.5.2: without a challenge no client would fetch another token.
      assert.match(
        response.headers.get('www-authenticate') ?? '',
        /^Bearer .*team\/app.*error="invalid_token",error_description="[^"]+"$/,
      )
    })
  }

  test('a token for the former one mounts nothing out of the new one, which its owner may not pull', async () => {
    await administer('POST', '/users', { name: 'mounter', password: PASSWORD })
    const subject = { kind: 'principal', name: 'mounter' }
    await administer('POST', '/grants', { subject, pattern: 'own/**', actions: ['push'] })
    const { id } = await administer('POST', '/grants', { subject, pattern: 'lent/app', actions: ['pull'] })
    await fill('lent/app')
    const scopes = ['repository:lent/app:pull', 'repository:own/app:pull,push']
    const token = `Bearer ${await fetchToken(app.url, scopes, basic('mounter', PASSWORD))}`
    const mount = `/v2/own/app/blobs/uploads/?mount=${DIGEST}&from=lent/app`
    await administer('DELETE', `/grants/${String(id)}`)
    await app.db.query(`update repository set deleted_at = now() where name = 'lent/app'`)
    await fill('lent/app')
    assert.equal((await ask(token, 'POST', mount)).status, 202)
    await administer('POST', '/grants', { subject, pattern: 'lent/app', actions: ['pull'] })
    assert.equal((await ask(token, 'POST', mount)).status, 201)
  })

  test('an upload that began in the former one is not there', async () => {
    assert.equal((await ask(undefined, 'PATCH', location, 'x')).status, 404)
  })

  test('a fresh token opens the new one', async () => {
    const fresh = `Bearer ${await fetchToken(app.url, ['repository:team/app:pull'], ADMIN)}`
    assert.equal((await ask(fresh, 'GET', '/v2/team/app/manifests/1')).status, 200)
  })
})
