import assert from 'node:assert/strict'
import { createHash, createHmac, createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto'
import type { JsonWebKey } from 'node:crypto'
import { after, before, suite, test } from 'node:test'
import { MAX_TOKEN_LENGTH, type SigningKey, signCapability, signToken } from '../../src/auth/tokens.ts'
import { listSigningKeys } from '../../src/metadata/signing-keys.ts'
import { PASSWORD, basic, fetchToken } from '../support/access.ts'
import { type AccessApp, startAccessApp } from '../support/access-app.ts'

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
const CONFIG = '{}'
const DIGEST = `sha256:${createHash('sha256').update(CONFIG).digest('hex')}`
const config = { mediaType: 'application/vnd.oci.image.config.v1+json', digest: DIGEST, size: 2 }
const IMAGE = JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST, config, layers: [] })
const ADMIN = basic('admin', PASSWORD)
const NOW = Math.floor(Date.now() / 1000)
const FRAME = { issuer: 'berth', audience: 'berth', issuedAt: NOW, expiresAt: NOW + 600 }
const ACCESS = [{ type: 'repository', name: 'team/app', actions: ['pull', 'push', 'delete'] }]
const CLAIMS = { identity: { kind: 'user', name: 'admin' }, access: ACCESS, id: 'forged' } as const
const stranger = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')

/** What a forger has: a right token, our public key and its name; `signer` is our own key, for what a bug of ours would sign. */
interface Known {
  readonly good: string
  readonly publicPem: string
  readonly signer: SigningKey
  /** A token for what stood at this name before. */
  readonly former: string
}

/** RFC 8725 sections 2 and 3 (best current practice for JWT) name most of these. */
const FORGERIES: Readonly<Record<string, (known: Known) => string>> = {
  'alg none without a signature': known => `${header(known, { alg: 'none' })}.${claimsOf(known)}.`,
  'alg none with the signature': known => `${header(known, { alg: 'none' })}.${claimsOf(known)}.${signatureOf(known)}`,
  'alg nOnE': known => `${header(known, { alg: 'nOnE' })}.${claimsOf(known)}.`,
  'HS256 keyed by our public key': known => hmac(known, 'HS256'),
  'ES256 in name with an HMAC': known => hmac(known, 'ES256'),
  'another key with our kid': ({ signer }) => signToken({ ...signer, key: stranger.privateKey }, FRAME, CLAIMS),
  'a kid that is not ours': ({ signer }) => signToken({ ...signer, kid: 'other' }, FRAME, CLAIMS),
  'a kid that leads out of a directory': ({ signer }) => signToken({ ...signer, kid: '../../dev/null' }, FRAME, CLAIMS),
  'a kid that is a query': ({ signer }) => signToken({ ...signer, kid: "' or '1'='1" }, FRAME, CLAIMS),
  'a kid that every object has': ({ signer }) => signToken({ ...signer, kid: '__proto__' }, FRAME, CLAIMS),
  'no kid': known => `${part({ alg: 'ES256', typ: 'JWT' })}.${claimsOf(known)}.${signatureOf(known)}`,
  'a key of its own in jwk': ({ signer }) => {
    const jwk = stranger.publicKey.export({ format: 'jwk' })
    const text = `${part({ alg: 'ES256', typ: 'JWT', kid: signer.kid, jwk })}`
    return `${text}.${signToken({ ...signer, key: stranger.privateKey }, FRAME, CLAIMS)
      .split('.')
      .slice(1)
      .join('.')}`
  },
  'another audience': ({ signer }) => signToken(signer, { ...FRAME, audience: 'other' }, CLAIMS),
  'another issuer': ({ signer }) => signToken(signer, { ...FRAME, issuer: 'other' }, CLAIMS),
  'a time that is over': ({ signer }) =>
    signToken(signer, { ...FRAME, issuedAt: NOW - 700, expiresAt: NOW - 100 }, CLAIMS),
  'a time that has not begun': ({ signer }) =>
    signToken(signer, { ...FRAME, issuedAt: NOW + 3_600, expiresAt: NOW + 7_200 }, CLAIMS),
  'other claims under the signature': known => {
    const claims = part({ iss: 'berth', aud: 'berth', sub: 'admin', access: ACCESS, exp: NOW + 600 })
    return `${known.good.split('.')[0]}.${claims}.${signatureOf(known)}`
  },
  'a signature that is cut short': ({ good }) => good.slice(0, -4),
  'a signature of zeros (CVE-2022-21449)': known =>
    `${known.good.split('.').slice(0, 2).join('.')}.${Buffer.alloc(64).toString('base64url')}`,
  'more than a token may be': ({ good }) => `${good}${'A'.repeat(MAX_TOKEN_LENGTH - good.length + 1)}`,
  'the capability of an upload': ({ signer }) => signCapability(signer, FRAME, { upload: 'u', repository: 'team/app' }),
  'a repository that was deleted and made again (goharbor/harbor #22900)': ({ former }) => former,
  'no form at all': () => 'abc',
}

const header = ({ signer }: Known, { alg }: { alg: string }): string => part({ alg, typ: 'JWT', kid: signer.kid })
const claimsOf = ({ good }: Known): string => good.split('.')[1] ?? ''
const signatureOf = ({ good }: Known): string => good.split('.')[2] ?? ''

function hmac(known: Known, alg: string): string {
  const text = `${header(known, { alg })}.${claimsOf(known)}`
  return `${text}.${createHmac('sha256', known.publicPem).update(text).digest('base64url')}`
}

void suite('a token that is forged, over or for something else', () => {
  let app: AccessApp
  let known: Known

  before(async () => {
    app = await startAccessApp()
    await fill()
    const former = await fetchToken(app.url, ['repository:team/app:pull,push,delete'], ADMIN)
    assert.equal((await ask(former, '/v2/team/app/manifests/1')).status, 200)
    await app.db.query(`update repository set deleted_at = now() where name = 'team/app'`)
    await fill()
    const good = await fetchToken(app.url, ['repository:team/app:pull,push,delete'], ADMIN)
    const row = (await listSigningKeys(app.db)).find(({ signing }) => signing)
    assert.ok(row !== undefined)
    const [privateKey, publicKey] = [row.private_jwk as JsonWebKey, row.public_jwk as JsonWebKey]
    known = {
      good,
      former,
      publicPem: createPublicKey({ key: publicKey, format: 'jwk' }).export({ type: 'spki', format: 'pem' }).toString(),
      signer: { kid: row.kid, key: createPrivateKey({ key: privateKey, format: 'jwk' }) },
    }
  })
  after(() => app.close())

  const ask = async (token: string, path: string, method = 'GET'): Promise<Response> => {
    const response = await fetch(`${app.url}${path}`, { method, headers: { Authorization: `Bearer ${token}` } })
    await response.arrayBuffer()
    return response
  }

  async function fill(): Promise<void> {
    const headers = { Authorization: ADMIN, 'Content-Type': MANIFEST }
    const blob = `${app.url}/v2/team/app/blobs/uploads/?digest=${DIGEST}`
    assert.equal((await fetch(blob, { method: 'POST', headers, body: CONFIG })).status, 201)
    const tag = `${app.url}/v2/team/app/manifests/1`
    assert.equal((await fetch(tag, { method: 'PUT', headers, body: IMAGE })).status, 201)
  }

  test('what the forgeries are made from opens: the right token, and one that our key signs with their claims', async () => {
    for (const token of [known.good, signToken(known.signer, FRAME, CLAIMS)]) {
      assert.equal((await ask(token, '/v2/team/app/manifests/1')).status, 200)
    }
  })

  const CALLS: readonly (readonly [method: string, path: string, scope: string])[] = [
    ['GET', '/v2/team/app/manifests/1', 'pull'],
    ['HEAD', `/v2/team/app/blobs/${DIGEST}`, 'pull'],
    ['POST', '/v2/team/app/blobs/uploads/', 'pull,push'],
    ['DELETE', '/v2/team/app/manifests/1', 'delete'],
  ]
  for (const [what, forge] of Object.entries(FORGERIES)) {
    test(`is 401 with one challenge that says so: ${what} (RFC 6750 section 3.1)`, async () => {
      // The right one was verified a moment before: nothing that is remembered of it may open for another.
      assert.equal((await ask(known.good, '/v2/')).status, 200)
      const token = forge(known)
      const isFormer = token === known.former
      const told = isFormer
        ? 'the token was issued for a repository that has been deleted since'
        : 'the token is not valid'
      for (const [method, path, scope] of CALLS) {
        const { status, headers } = await ask(token, path, method)
        assert.equal(status, 401, `${method} ${path}`)
        assert.equal(
          headers.get('www-authenticate'),
          `Bearer realm="${app.url}/token",service="berth",scope="repository:team/app:${scope}",error="invalid_token",error_description="${told}"`,
        )
      }
    })
  }

  test('nothing was changed by any of them', async () => {
    assert.equal((await ask(known.good, '/v2/team/app/manifests/1')).status, 200)
  })
})
