import assert from 'node:assert/strict'
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { type AccessServer, startAccessServer } from '../support/access.ts'
import { until } from '../support/clients.ts'
import { type TestIssuer, startIssuer } from '../support/issuer.ts'
import { startServer } from '../support/server.ts'

const SERVICE = 'registry.example'
const MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
/** Of `{}`. */
const EMPTY_DIGEST = 'sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a'
const REALM = 'https://auth.example/token?x=1'

let directory: string
let issuer: TestIssuer
let server: AccessServer
let keyFile: string

const jwks = (of: TestIssuer): string =>
  JSON.stringify({ keys: [{ ...of.publicKey.export({ format: 'jwk' }), kid: 'one' }] })
const token = (access: readonly object[], claims: object = {}, of = issuer): string =>
  of.sign({ iss: 'token server', aud: SERVICE, sub: 'alice', access, ...claims })
const repository = (name: string, ...actions: string[]): object => ({ type: 'repository', name, actions })
const ask = async (path: string, bearer: string, method = 'GET'): Promise<Response> =>
  await fetch(`${server.url}${path}`, { method, headers: { Authorization: `Bearer ${bearer}` } })

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'berth-test-issuers-'))
  keyFile = join(directory, 'keys.json')
  issuer = await startIssuer()
  await writeFile(keyFile, jwks(issuer))
  server = await startAccessServer({
    BERTH_AUTH_ISSUERS: JSON.stringify([{ issuer: 'token server', keyFile }]),
    BERTH_AUTH_SERVICE: SERVICE,
    BERTH_AUTH_REALM: REALM,
  })
})

after(async () => {
  await server?.stop()
  await issuer?.close()
  await rm(directory, { recursive: true, force: true })
})

void suite('a registry behind a token server that is not its own (distribution, docs/spec/auth/token)', () => {
  test('sends clients there', async () => {
    const { status, headers } = await fetch(`${server.url}/v2/`)
    assert.equal(status, 401)
    assert.equal(headers.get('www-authenticate'), `Bearer realm="${REALM}",service="${SERVICE}"`)
  })

  test('lets its tokens do what they say and no more; each action stands for itself', async () => {
    const both = token([repository('team/app', 'pull', 'push')])
    assert.equal((await ask('/v2/', both)).status, 200)
    assert.equal((await ask('/v2/team/app/blobs/uploads/', both, 'POST')).status, 202)
    assert.equal((await ask('/v2/team/app/tags/list', both)).status, 200)
    assert.equal((await ask('/v2/team/other/tags/list', both)).status, 401)
    const onlyPush = token([repository('team/app', 'push')])
    const refusal = await ask('/v2/team/app/tags/list', onlyPush)
    assert.equal(refusal.status, 401)
    assert.match(refusal.headers.get('www-authenticate') ?? '', /error="insufficient_scope",error_description="[^"]+"$/)
    assert.match(await refusal.text(), /alice may not pull here/)
    const notOurs = token([repository('team/app', 'admin')])
    assert.equal((await ask('/v2/team/app/tags/list', notOurs)).status, 401)
  })

  test('says what is wrong with a token, to whoever runs the token server', async () => {
    const answer = await ask('/v2/', token([], { aud: 'other.example' }))
    assert.equal(answer.status, 401)
    assert.match(answer.headers.get('www-authenticate') ?? '', /error="invalid_token",error_description="[^"]+"$/)
    assert.match(await answer.text(), /not made for registry\.example/)
  })

  test('lists all repositories to a token that may list, and none of its own administration to any', async () => {
    const name = 'team/listed'
    const pusher = token([repository(name, 'pull', 'push')])
    const send = async (method: string, path: string, type: string, body: string): Promise<number> => {
      const headers = { Authorization: `Bearer ${pusher}`, 'Content-Type': type }
      return (await fetch(`${server.url}/v2/${name}/${path}`, { method, headers, body })).status
    }
    const config = { mediaType: 'application/vnd.oci.empty.v1+json', digest: EMPTY_DIGEST, size: 2 }
    const manifest = JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST, config, layers: [config] })
    const upload = `blobs/uploads/?digest=${EMPTY_DIGEST}`
    assert.equal(await send('POST', upload, 'application/octet-stream', '{}'), 201)
    assert.equal(await send('PUT', 'manifests/1', MANIFEST, manifest), 201)
    const lister = token([{ type: 'registry', name: 'catalog', actions: ['*'] }])
    const { repositories } = (await (await ask('/v2/_catalog', lister)).json()) as { repositories: string[] }
    assert.ok(repositories.includes(name))
    const reader = token([{ type: 'registry', name: 'catalog', actions: ['pull'] }])
    assert.equal((await ask('/v2/_catalog', reader)).status, 401)
    assert.ok([401, 403].includes((await ask('/api/v1/users', token([repository('**', '*')]))).status))
  })

  test('takes other keys when their file changes, and refuses what the former ones signed', async () => {
    const next = await startIssuer()
    try {
      const former = token([])
      assert.equal((await ask('/v2/', former)).status, 200)
      await writeFile(`${keyFile}.new`, jwks(next))
      await rename(`${keyFile}.new`, keyFile)
      await until('the new key is taken', async () => (await ask('/v2/', token([], {}, next))).status === 200)
      assert.equal((await ask('/v2/', former)).status, 401)
    } finally {
      await next.close()
    }
  })
})

test('a start with issuers that cannot be used says of each setting what is wrong', async () => {
  const cases: readonly (readonly [issuers: unknown, fault: RegExp])[] = [
    ['no json', /auth\.issuers: must be a list of issuers/],
    [[{ issuer: 'a' }], /auth\.issuers\.0: must name its keys by jwksUrl, keyFile or rootCertBundle/],
    [[{ issuer: 'a', jwksUrl: 'ftp://a' }], /auth\.issuers\.0\.jwksUrl: must be a URL/],
    [[{ issuer: 'berth', jwksUrl: 'http://a' }], /auth\.issuers\.0\.issuer: is auth\.service/],
    [[{ issuer: 'a', keyFile: join(directory, 'none') }], /auth\.issuers\.0\.keyFile: cannot be read/],
    [[{ issuer: 'a', rootCertBundle: import.meta.filename }], /auth\.issuers\.0: .* holds no certificate/],
  ]
  for (const [issuers, fault] of cases) {
    const text = typeof issuers === 'string' ? issuers : JSON.stringify(issuers)
    const env = { BERTH_AUTH_MODE: 'token', BERTH_AUTH_ISSUERS: text }
    await assert.rejects(startServer({ env }), fault)
  }
})
