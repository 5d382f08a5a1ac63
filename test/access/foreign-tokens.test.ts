import assert from 'node:assert/strict'
import { createHmac, createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto'
import { after, before, suite, test } from 'node:test'
import jwt from 'jsonwebtoken'
import type { ForeignTokens } from '../../src/access/bearer-tokens.ts'
import { foreignTokens } from '../../src/access/foreign-tokens.ts'
import { createIssuerFetch } from '../../src/access/issuer-fetch.ts'
import { IssuerKeys, keySetsAt } from '../../src/access/issuer-keys.ts'
import { type TrustedKeys, readKeyFile, readRootBundle } from '../../src/access/trusted-keys.ts'
import { keyNames } from '../../src/auth/key-names.ts'
import { TokenRefused } from '../../src/auth/tokens.ts'
import { RegistryError } from '../../src/oci/errors.ts'
import { type TestCertificate, makeCertificate, x5cOf } from '../support/certificate.ts'
import { type TestIssuer, startIssuer } from '../support/issuer.ts'

const ISSUER = 'token server'
const AUDIENCE = 'registry.example'
const ACCESS = [{ type: 'repository', name: 'team/app', actions: ['pull', 'push'] }]
const NONE: TrustedKeys = { keys: new Map(), roots: [] }

const authority = { ...makeCertificate({ name: 'authority', isAuthority: true }), name: 'authority' }
const between = { ...makeCertificate({ name: 'between', issuer: authority, isAuthority: true }), name: 'between' }
const signer = makeCertificate({ name: 'signer', issuer: between })

/** A verifier of the tokens of one issuer, which has a key set at `jwksUrl` where one is given. */
function verifier(trusted: TrustedKeys, jwksUrl?: string): ForeignTokens {
  const addresses = new Map(jwksUrl === undefined ? [] : [[ISSUER, jwksUrl]])
  const keySets = new IssuerKeys(keySetsAt(addresses, createIssuerFetch({ allowPrivate: true })), Date.now)
  const issuer = { issuer: ISSUER, audience: AUDIENCE, trusted: () => trusted, hasKeySet: jwksUrl !== undefined }
  return foreignTokens([issuer], keySets)
}

/** A token by ES256, good for a minute, with these claims and members of the header in place of the ordinary ones. */
function sign(key: string, header: object, claims: object = {}): string {
  const now = Math.floor(Date.now() / 1000)
  const all = { iss: ISSUER, aud: AUDIENCE, sub: 'alice', nbf: now, exp: now + 60, access: ACCESS, ...claims }
  const payload = Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined))
  return jwt.sign(payload, createPrivateKey(key), { algorithm: 'ES256', header: { alg: 'ES256', ...header } })
}

const judge = async (tokens: ForeignTokens, token: string) => await tokens.verify(token, Date.now())

async function refused(tokens: ForeignTokens, token: string, reason: RegExp): Promise<void> {
  await assert.rejects(judge(tokens, token), (error: Error) => {
    assert.ok(error instanceof TokenRefused, error.stack)
    assert.match(error.message, reason)
    return true
  })
}

const bundle: TrustedKeys = readRootBundle(`${authority.cert}\n${signer.cert}`)
const libtrustId = keyNames(createPublicKey(signer.cert))[1] ?? ''

void suite('a token of another issuer, by certificates (distribution, registry/auth/token)', () => {
  const tokens = verifier(bundle)

  test('names its key by RFC 7638 (registry:3) or as libtrust does (registry:2)', async () => {
    for (const kid of keyNames(createPublicKey(signer.cert))) {
      const seen = await judge(tokens, sign(signer.key, { kid }))
      assert.deepEqual(seen, { identity: { kind: 'foreign', name: 'alice' }, access: ACCESS })
    }
    assert.match(libtrustId, /^(?:[A-Z2-7]{4}:){11}[A-Z2-7]{4}$/)
  })

  test('may be made for others besides: aud is a list (RFC 7519 section 4.1.3)', async () => {
    assert.ok(await judge(tokens, sign(signer.key, { kid: libtrustId }, { aud: ['other.example', AUDIENCE] })))
  })

  test('brings its certificate, which leads to one that is trusted: by x5c, also within jwk (RFC 7515 section 4.1)', async () => {
    const onlyRoot = verifier(readRootBundle(authority.cert))
    const x5c = [x5cOf(signer), x5cOf(between)]
    assert.ok(await judge(onlyRoot, sign(signer.key, { x5c })))
    assert.ok(await judge(onlyRoot, sign(signer.key, { jwk: { kty: 'EC', x5c } })))
    assert.ok(await judge(verifier(readRootBundle(signer.cert)), sign(signer.key, { x5c: [x5cOf(signer)] })))
  })

  const stranger = { ...makeCertificate({ name: 'authority', isAuthority: true }), name: 'authority' }
  const strangers = makeCertificate({ issuer: stranger })
  const leafAsAuthority = makeCertificate({ issuer: { ...signer, name: 'signer' } })
  const over = makeCertificate({ issuer: authority, endsInHours: -1 })
  const chains: readonly (readonly [what: string, key: string, x5c: unknown])[] = [
    ['of an authority of the same name', strangers.key, [x5cOf(strangers), x5cOf(stranger)]],
    ['issued by a certificate that may not issue any', leafAsAuthority.key, [x5cOf(leafAsAuthority), x5cOf(signer)]],
    ['that is over', over.key, [x5cOf(over)]],
    [
      'with what leads to a trusted one in another order',
      signer.key,
      [x5cOf(signer), x5cOf(authority), x5cOf(between)],
    ],
    ['without what leads to a trusted one', signer.key, [x5cOf(signer)]],
    ['that is none', signer.key, ['AAAA']],
    ['that is no text', signer.key, [{}]],
    ['in an empty list', signer.key, []],
    ['in too long a list', signer.key, Array.from({ length: 6 }, () => x5cOf(signer))],
  ]
  const rootOnly = verifier(readRootBundle(authority.cert))
  for (const [what, key, x5c] of chains) {
    test(`is refused with a certificate ${what} (RFC 5280 section 6.1)`, async () => {
      await refused(rootOnly, sign(key, { x5c, kid: libtrustId }), /x5c/)
    })
  }

  test('is refused where it is signed by another key than its certificate’s', async () => {
    await refused(rootOnly, sign(between.key, { x5c: [x5cOf(signer), x5cOf(between)] }), /signature/)
  })
})

void suite('a forged or stale token of another issuer', () => {
  const tokens = verifier(bundle)
  const publicPem = createPublicKey(signer.cert).export({ type: 'spki', format: 'pem' }).toString()
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')
  const claims = { iss: ISSUER, aud: AUDIENCE, exp: 4_000_000_000, access: ACCESS }
  const hmacBody = `${part({ alg: 'HS256', kid: libtrustId })}.${part(claims)}`
  const hmac = createHmac('sha256', publicPem).update(hmacBody).digest('base64url')
  const other = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const otherKey = other.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  const otherJwk = other.publicKey.export({ format: 'jwk' })
  const past = Math.floor(Date.now() / 1000) - 3_600
  const kid = libtrustId
  const cases: readonly (readonly [what: string, token: string, reason: RegExp])[] = [
    ['without a signature', `${part({ alg: 'none', kid })}.${part(claims)}.`, /signature/],
    ['signed by HS256 with the public key', `${hmacBody}.${hmac}`, /signature/],
    ['signed by another key under the name of ours', sign(otherKey, { kid }), /signature/],
    ['that brings its own key', sign(otherKey, { jwk: otherJwk }), /names no key/],
    ['that brings its own key under a name', sign(otherKey, { jwk: { ...otherJwk, kid: 'x' } }), /not known/],
    ['that names a file as key', sign(signer.key, { kid: '../../etc/passwd' }), /not known/],
    ['that names no key', sign(signer.key, {}), /names no key/],
    ['made for another', sign(signer.key, { kid }, { aud: 'other.example' }), /not made for registry\.example/],
    ['made for nobody', sign(signer.key, { kid }, { aud: [] }), /not made for/],
    ['that is over', sign(signer.key, { kid }, { exp: past }), /expired/],
    ['that never ends', sign(signer.key, { kid }, { exp: undefined }), /no expiry/],
    ['that is not good yet', sign(signer.key, { kid }, { nbf: past + 7_200 }), /not good yet/],
  ]
  for (const [what, token, reason] of cases) {
    test(`is refused: one ${what} (RFC 8725 section 2)`, () => refused(tokens, token, reason))
  }

  test('is not looked at where it is of another issuer, or none, or too long to be read', async () => {
    assert.equal(await judge(tokens, sign(signer.key, { kid }, { iss: `${ISSUER} ` })), undefined)
    assert.equal(await judge(tokens, 'opaque'), undefined)
    assert.equal(await judge(tokens, sign(signer.key, { kid }, { pad: 'x'.repeat(40_000) })), undefined)
  })
})

void suite('what a token of another issuer allows', () => {
  const tokens = verifier(bundle)
  const accessOf = async (access: unknown) =>
    (await judge(tokens, sign(signer.key, { kid: libtrustId }, { access })))?.access

  test('is what it says in Distribution’s form, and nothing where it says something else', async () => {
    const entry = { type: 'repository', name: 'a', actions: ['pull', 'admin', 'delete', '*', 7], repository: 1 }
    assert.deepEqual(await accessOf([entry]), [{ type: 'repository', name: 'a', actions: ['pull', 'delete', '*'] }])
    for (const nothing of [null, undefined, 'all', {}, [null], [{ type: 'repository', name: 'a' }], [{ name: 'a' }]]) {
      assert.deepEqual(await accessOf(nothing), [])
    }
  })
})

void suite('keys of another issuer', () => {
  let issuer: TestIssuer
  before(async () => {
    issuer = await startIssuer()
  })
  after(() => issuer.close())
  const claims = { iss: ISSUER, aud: AUDIENCE, access: ACCESS }

  test('are read from its key set, asked for once, and go on counting while it is down (RFC 7517 section 5)', async () => {
    const gone = await startIssuer()
    const tokens = verifier(NONE, `${gone.url}/keys`)
    assert.ok(await judge(tokens, gone.sign(claims)))
    assert.ok(await judge(tokens, gone.sign(claims)))
    assert.equal(gone.asked(), 1)
    await refused(tokens, gone.sign(claims, 'unknown'), /not known/)
    await gone.close()
    assert.ok(await judge(tokens, gone.sign(claims)))
  })

  test('that cannot be asked for are a fault of ours to mend, not of the client: 503 with Retry-After (RFC 9110 15.6.4)', async () => {
    const gone = await startIssuer()
    await gone.close()
    await assert.rejects(judge(verifier(NONE, `${gone.url}/keys`), gone.sign(claims)), (error: Error) => {
      assert.ok(error instanceof RegistryError)
      assert.equal(error.code, 'UNAVAILABLE')
      assert.ok(Number(error.headers?.['Retry-After']) > 0)
      return true
    })
  })

  test('are read from a file: a key set, or PEM, of which one alone may be called anything', async () => {
    const pem = issuer.publicKey.export({ type: 'spki', format: 'pem' }).toString()
    const jwk = { ...issuer.publicKey.export({ format: 'jwk' }), kid: 'one' }
    for (const content of [pem, JSON.stringify({ keys: [jwk] })]) {
      assert.ok(await judge(verifier({ ...NONE, ...readKeyFile(content) }), issuer.sign(claims)))
    }
    const two = `${pem}\n${createPublicKey(signer.cert).export({ type: 'spki', format: 'pem' }).toString()}`
    const named = verifier({ ...NONE, ...readKeyFile(two) })
    await refused(named, issuer.sign(claims), /not known/)
    for (const name of keyNames(issuer.publicKey)) assert.ok(await judge(named, issuer.sign(claims, name)))
  })

  test('that cannot be used are said to be: private, too short, of no kind we know, or none', () => {
    const short = generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey.export({ type: 'spki', format: 'pem' })
    const edwards = generateKeyPairSync('ed25519').publicKey.export({ type: 'spki', format: 'pem' })
    const empty = '{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"one"}]}'
    for (const bad of [short.toString(), edwards.toString(), signer.key, empty, '{', '']) {
      assert.throws(() => readKeyFile(bad), { name: 'IssuerFault' })
    }
    assert.throws(() => readRootBundle(signer.key), { name: 'IssuerFault' })
  })

  test('of the same kind have other names where they are other keys', () => {
    const names = [signer, between, authority].flatMap((one: TestCertificate) => keyNames(createPublicKey(one.cert)))
    assert.equal(new Set(names).size, 6)
  })
})
