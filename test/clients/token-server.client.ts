import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { createPrivateKey, createPublicKey } from 'node:crypto'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import jwt from 'jsonwebtoken'
import { keyNames } from '../../src/auth/key-names.ts'
import { type AccessServer, startAccessServer } from '../support/access.ts'
import { makeCertificate, x5cOf } from '../support/certificate.ts'
import { removeScratch, scratch, until } from '../support/clients.ts'

const ISSUER = 'token server'
const SERVICE = 'registry.example'
const REALM = 'http://127.0.0.1:1/token'

const authority = { ...makeCertificate({ name: 'authority', isAuthority: true }), name: 'authority' }
const signer = makeCertificate({ name: 'signer', issuer: authority })
const direct = makeCertificate({ name: 'direct' })
const stranger = makeCertificate({ name: 'stranger' })

/** A token by ES256 that lets its bearer pull from `team/app`. */
function sign(key: string, header: object, claims: object = {}): string {
  const now = Math.floor(Date.now() / 1000)
  const access = [{ type: 'repository', name: 'team/app', actions: ['pull'] }]
  const all = {
    iss: ISSUER,
    aud: SERVICE,
    sub: 'alice',
    nbf: now,
    iat: now,
    exp: now + 300,
    jti: 'x',
    access,
    ...claims,
  }
  return jwt.sign(all, createPrivateKey(key), { algorithm: 'ES256', header: { alg: 'ES256', typ: 'JWT', ...header } })
}

const libtrust = keyNames(createPublicKey(direct.cert))[1]
const past = Math.floor(Date.now() / 1000) - 3_600
const TOKENS: readonly (readonly [what: string, token: string])[] = [
  ['named as libtrust names its key', sign(direct.key, { kid: libtrust })],
  ['with its certificate, issued by one of the bundle', sign(signer.key, { x5c: [x5cOf(signer)] })],
  ['with its certificate, which stands in the bundle', sign(direct.key, { x5c: [x5cOf(direct)] })],
  ['with a certificate of nobody in the bundle', sign(stranger.key, { x5c: [x5cOf(stranger)] })],
  ['with a certificate of another key', sign(stranger.key, { x5c: [x5cOf(signer)] })],
  ['signed by another key', sign(stranger.key, { kid: libtrust })],
  ['with a key that is not known', sign(direct.key, { kid: 'AAAA:BBBB' })],
  ['with no key', sign(direct.key, {})],
  ['made for another', sign(direct.key, { kid: libtrust }, { aud: 'other.example' })],
  ['of another issuer', sign(direct.key, { kid: libtrust }, { iss: 'other' })],
  ['that is over', sign(direct.key, { kid: libtrust }, { exp: past })],
  ['that is over by less than the leeway', sign(direct.key, { kid: libtrust }, { exp: past + 3_570 })],
  ['that is not good yet', sign(direct.key, { kid: libtrust }, { nbf: past + 7_200 })],
  ['for nothing', sign(direct.key, { kid: libtrust }, { access: [] })],
  [
    'that may push alone',
    sign(direct.key, { kid: libtrust }, { access: [{ type: 'repository', name: 'team/app', actions: ['push'] }] }),
  ],
  [
    'that may everything',
    sign(direct.key, { kid: libtrust }, { access: [{ type: 'repository', name: 'team/app', actions: ['*'] }] }),
  ],
  ['that is none', 'opaque'],
]

describe('the registry in place of Distribution 2.8 behind one token server', () => {
  let work: string
  let berth: AccessServer
  let peer: ChildProcess
  let peerUrl: string

  before(async () => {
    work = await scratch()
    const bundle = join(work, 'bundle.pem')
    await writeFile(bundle, `${authority.cert}${direct.cert}`)
    berth = await startAccessServer({
      BERTH_AUTH_SERVICE: SERVICE,
      BERTH_AUTH_REALM: REALM,
      BERTH_AUTH_ISSUERS: JSON.stringify([{ issuer: ISSUER, rootCertBundle: bundle }]),
    })
    const address = `127.0.0.1:${await freePort()}`
    peerUrl = `http://${address}`
    const token = { realm: REALM, service: SERVICE, issuer: ISSUER, rootcertbundle: bundle }
    const storage = { filesystem: { rootdirectory: join(work, 'peer') } }
    const config = { version: 0.1, log: { level: 'error' }, storage, http: { addr: address }, auth: { token } }
    await writeFile(join(work, 'peer.yml'), JSON.stringify(config))
    peer = spawn('docker-registry', ['serve', join(work, 'peer.yml')], { stdio: 'ignore' })
    const failed = once(peer, 'error').then(([error]: unknown[]) => Promise.reject(error as Error))
    await Promise.race([failed, until('Distribution answers', () => answers(peerUrl))])
  })
  after(async () => {
    if (peer?.exitCode === null) {
      peer.kill()
      await once(peer, 'close')
    }
    await berth?.stop()
    await removeScratch(work)
  })

  for (const [what, token] of TOKENS) {
    it(`lets in and refuses alike, with the same challenge: a token ${what}`, async () => {
      for (const path of ['/v2/', '/v2/team/app/tags/list', '/v2/other/app/tags/list']) {
        const [ours, theirs] = await Promise.all([berth.url, peerUrl].map(url => ask(url, path, token)))
        assert.deepEqual(ours, theirs, path)
      }
    })
  }

  it('sends who shows nothing to the same place for the same scope', async () => {
    for (const path of ['/v2/', '/v2/team/app/tags/list']) {
      const [ours, theirs] = await Promise.all([berth.url, peerUrl].map(url => ask(url, path)))
      assert.deepEqual(ours, theirs, path)
    }
  })
})

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

async function answers(url: string): Promise<boolean> {
  return await fetch(url).then(
    () => true,
    () => false,
  )
}

/** The challenge without its description (RFC 6750 section 3), which only one of them gives. */
async function ask(
  url: string,
  path: string,
  token?: string,
): Promise<{ status: number; challenge: string | undefined }> {
  const headers = token === undefined ? {} : { Authorization: `Bearer ${token}` }
  const answer = await fetch(`${url}${path}`, { headers })
  await answer.text()
  return {
    status: answer.status,
    challenge: answer.headers.get('www-authenticate')?.replace(/,error_description="[^"]*"$/, ''),
  }
}
