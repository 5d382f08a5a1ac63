import assert from 'node:assert/strict'
import { type KeyObject, createHmac, generateKeyPairSync } from 'node:crypto'
import { test } from 'node:test'
import {
  MAX_TOKEN_LENGTH,
  TokenRefused,
  readToken,
  signCapability,
  signToken,
  verifyCapability,
  verifyToken,
} from '../../src/auth/tokens.ts'

const NOW = 1_800_000_000
const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const stranger = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const SIGNER = { kid: 'k1', key: pair.privateKey }
const FRAME = { issuer: 'berth', audience: 'berth', issuedAt: NOW, expiresAt: NOW + 600 }
const CLAIMS = {
  identity: { kind: 'user', name: 'alice', principalId: 7, epoch: 3, endsAt: new Date((NOW + 900) * 1000) },
  access: [{ type: 'repository', name: 'team/app', actions: ['pull'], repository: 5 }],
  id: 'j1',
} as const
const UPLOAD = { upload: 'u1', repository: 'team/app', principalId: 7, epoch: 3 }
const EXPECTED = { issuer: 'berth', audience: 'berth', now: NOW }

const findKey = (kid: string): Promise<KeyObject | undefined> =>
  Promise.resolve(kid === 'k1' ? pair.publicKey : undefined)
const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')

test('a token says what was signed, in the claims of Distribution and the registered ones (RFC 7519 section 4.1)', async () => {
  const token = signToken(SIGNER, FRAME, CLAIMS)
  const verified = await verifyToken(token, EXPECTED, findKey)
  assert.deepEqual(verified, { ...CLAIMS, expiresAt: FRAME.expiresAt })
  const read = readToken(token)
  assert.deepEqual(read?.header, { alg: 'ES256', typ: 'JWT', kid: 'k1' })
  assert.deepEqual(
    ['iss', 'aud', 'sub', 'iat', 'exp', 'jti'].map(name => read?.claims[name]),
    ['berth', 'berth', 'alice', NOW, NOW + 600, 'j1'],
  )
})

const good = signToken(SIGNER, FRAME, CLAIMS)
const [head = '', claims = '', signature = ''] = good.split('.')
const publicPem = pair.publicKey.export({ type: 'spki', format: 'pem' }).toString()
const hs256 = (header: object): string => {
  const text = `${part(header)}.${claims}`
  return `${text}.${createHmac('sha256', publicPem).update(text).digest('base64url')}`
}

/** RFC 8725 (best current practice for JWT) names these attacks. */
const FORGERIES: Readonly<Record<string, string>> = {
  'alg none': `${part({ alg: 'none', typ: 'JWT', kid: 'k1' })}.${claims}.`,
  'alg None with the signature': `${part({ alg: 'None', typ: 'JWT', kid: 'k1' })}.${claims}.${signature}`,
  'HS256 keyed by our public key': hs256({ alg: 'HS256', typ: 'JWT', kid: 'k1' }),
  'ES256 in name with an HMAC': hs256({ alg: 'ES256', typ: 'JWT', kid: 'k1' }),
  'a stranger with our kid': signToken({ kid: 'k1', key: stranger.privateKey }, FRAME, CLAIMS),
  'an unknown kid': signToken({ kid: 'k2', key: pair.privateKey }, FRAME, CLAIMS),
  'a kid that is a path': signToken({ kid: '../../../../dev/null', key: pair.privateKey }, FRAME, CLAIMS),
  'a kid that is a query': signToken({ kid: "k1' OR '1'='1", key: pair.privateKey }, FRAME, CLAIMS),
  'no kid': `${part({ alg: 'ES256', typ: 'JWT' })}.${claims}.${signature}`,
  'a kid that is no string': `${part({ alg: 'ES256', typ: 'JWT', kid: ['k1'] })}.${claims}.${signature}`,
  'a key of its own in the header': `${part({
    alg: 'ES256',
    kid: 'k9',
    jwk: stranger.publicKey.export({ format: 'jwk' }),
  })}.${claims}.${signature}`,
  'another audience': signToken(SIGNER, { ...FRAME, audience: 'other' }, CLAIMS),
  'another issuer': signToken(SIGNER, { ...FRAME, issuer: 'other' }, CLAIMS),
  expired: signToken(SIGNER, { ...FRAME, issuedAt: NOW - 700, expiresAt: NOW - 60 }, CLAIMS),
  'not yet good': signToken(SIGNER, { ...FRAME, issuedAt: NOW + 60, expiresAt: NOW + 660 }, CLAIMS),
  'other claims under the signature': `${head}.${part({ sub: 'admin', iss: 'berth', aud: 'berth' })}.${signature}`,
  'no signature': `${head}.${claims}.`,
  'two parts': `${head}.${claims}`,
  'a header that is no JSON': `abc.${claims}.${signature}`,
  'a header that is a list': `${part([])}.${claims}.${signature}`,
  'longer than a header may be': `${good}${'A'.repeat(MAX_TOKEN_LENGTH)}`,
  'the capability of an upload': signCapability(SIGNER, FRAME, UPLOAD),
  empty: '',
}
for (const [what, token] of Object.entries(FORGERIES)) {
  test(`a token is refused: ${what} (RFC 8725 sections 2 and 3)`, async () => {
    await assert.rejects(verifyToken(token, EXPECTED, findKey), TokenRefused)
  })
}

test('clocks may differ by a few seconds and not by more', async () => {
  const at = (now: number): Promise<unknown> => verifyToken(good, { ...EXPECTED, now }, findKey)
  await at(NOW - 5)
  await at(NOW + 604)
  await assert.rejects(at(NOW - 60), TokenRefused)
  await assert.rejects(at(NOW + 606), TokenRefused)
})

test('the capability of an upload says which, and an access token is none', async () => {
  const capability = await verifyCapability(signCapability(SIGNER, FRAME, UPLOAD), EXPECTED, findKey)
  assert.equal(capability.upload, 'u1')
  assert.equal(capability.repository, 'team/app')
  await assert.rejects(verifyCapability(good, EXPECTED, findKey), TokenRefused)
})
