import type { Proof } from '../auth/authority.ts'
import { RightPasswords } from '../auth/login-memory.ts'
import type { PatternActions } from '../auth/identity.ts'
import { siteOf } from '../auth/network.ts'
import { decoyHash, verifyPassword } from '../auth/passwords.ts'
import { hashSecret, secretKind } from '../auth/secrets.ts'
import { findSecret } from '../metadata/access-tokens.ts'
import type { Database } from '../metadata/database.ts'
import { type PrincipalRow, findPrincipal, findPrincipals } from '../metadata/principals.ts'
import type { Authenticator } from './authenticator.ts'

/** Personal access tokens and robots' secrets, recognised by their form; the name shown with them does not matter. */
export function secretAuthenticator(db: Database): Authenticator {
  return {
    name: 'token',
    async check({ password }) {
      const kind = secretKind(password)
      if (kind !== 'pat' && kind !== 'robot') return undefined
      const secret = await findSecret(db, hashSecret(password))
      if (secret === undefined) return { refused: 'unknown token' }
      const [principal] = await findPrincipals(db, [secret.principal_id])
      if (principal === undefined) return { refused: 'unknown token' }
      const owner = `${principal.kind} ${principal.name}`
      if (!secret.active) return { refused: `expired token of ${owner}`, message: 'the token has expired' }
      const { external_issuer: issuer, external_proof: proof } = principal
      if (issuer !== null && proof === null) {
        const why = `${owner} is not in the ${issuer} file any more`
        return { refused: why, message: `${principal.name} may not log in any more` }
      }
      if (!principal.active) {
        const why = principal.disabled_at === null ? 'has expired' : 'is disabled'
        return { refused: `${owner} ${why}`, message: `${principal.name} ${why}` }
      }
      const endsAt = earliest(secret.ends_at, principal.expires_at)
      return {
        tokenId: secret.token_id,
        identity: {
          kind: principal.kind,
          name: principal.name,
          principalId: principal.id,
          epoch: principal.epoch,
          secretId: secret.id,
          ...(endsAt === undefined ? {} : { endsAt }),
          ...(secret.scopes === null ? {} : { scopes: secret.scopes as readonly PatternActions[] }),
        },
      }
    },
  }
}

function earliest(...times: readonly (Date | null)[]): Date | undefined {
  return times.filter(time => time !== null).toSorted((a, b) => a.getTime() - b.getTime())[0]
}

/** A password that was right for a hash stays right for it: only memory limits how long that is remembered. */
export const REMEMBER_MS = 60_000

/**
 * Users with a password of ours. An unknown name costs as much as a wrong password, so that time tells nothing. A burst of
 * logins costs one hash: what is remembered is that a password was right for the hash that stands in the row now.
 */
export function userAuthenticator(db: Database): Authenticator {
  const decoy = decoyHash()
  const right = new RightPasswords(REMEMBER_MS)
  const identify = ({ name, id, epoch }: PrincipalRow): Proof => ({
    identity: { kind: 'user', name, principalId: id, epoch },
  })
  return {
    name: 'password',
    async recall({ name, password }) {
      const principal = await findPrincipal(db, name)
      const hash = principal?.password_hash ?? undefined
      const isKnown = hash !== undefined && principal?.active === true && right.has(hash, password)
      return isKnown ? identify(principal) : undefined
    },
    async check({ name, password }, { client }) {
      const principal = await findPrincipal(db, name)
      const hash = principal?.kind === 'user' ? principal.password_hash : null
      const isRight = await verifyPassword(password, hash ?? decoy, siteOf(client))
      if (principal === undefined || hash === null) return undefined
      if (!isRight) return { refused: 'wrong password' }
      if (!principal.active) return { refused: 'disabled user', message: `${name} is disabled` }
      right.add(hash, password)
      return identify(principal)
    },
  }
}
