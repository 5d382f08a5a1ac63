import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import jwt from 'jsonwebtoken'

/** A local OpenID issuer. */
export interface TestIssuer {
  readonly url: string
  /** How often its keys were asked for. */
  asked(): number
  /** Signs claims as this issuer, good for five minutes unless they say otherwise. */
  sign(claims: object, kid?: string): string
  /** The public key that verifies them. */
  readonly publicKey: KeyObject
  close(): Promise<void>
}

/** Starts an issuer with one RSA key, `kid` "one". `claimed` is what its discovery document names as issuer. */
export async function startIssuer(claimed?: string): Promise<TestIssuer> {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const jwk = { ...publicKey.export({ format: 'jwk' }), kid: 'one', use: 'sig', alg: 'RS256' }
  let asked = 0
  const server = createServer((request, response) => {
    const isKeys = request.url === '/keys'
    if (isKeys) asked++
    response.end(JSON.stringify(isKeys ? { keys: [jwk] } : { issuer: claimed ?? url, jwks_uri: `${url}/keys` }))
  })
  const listening = Promise.withResolvers<void>()
  server.listen(0, '127.0.0.1', listening.resolve)
  await listening.promise
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    url,
    publicKey,
    asked: () => asked,
    sign: (claims, keyid = 'one') => {
      const now = Math.floor(Date.now() / 1000)
      const all = { iss: url, iat: now, nbf: now, exp: now + 300, ...claims }
      return jwt.sign(all, privateKey, { algorithm: 'RS256', keyid })
    },
    async close() {
      const closed = Promise.withResolvers<void>()
      server.close(() => closed.resolve())
      server.closeAllConnections()
      await closed.promise
    },
  }
}
