import type { PatternActions } from '../auth/identity.ts'
import { hashPassword, verifyPassword } from '../auth/passwords.ts'
import { hashSecret, secretKind } from '../auth/secrets.ts'
import { findSecret } from '../metadata/access-tokens.ts'
import type { Database } from '../metadata/database.ts'
import { findPrincipal, findPrincipals } from '../metadata/principals.ts'
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
      if (!principal.active) {
        const why = principal.disabled_at === null ? 'expired' : 'disabled'
        return { refused: `${owner} is ${why}`, message: `${principal.name} is ${why}` }
      }
      return {
        tokenId: secret.token_id,
        identity: {
          kind: principal.kind,
          name: principal.name,
          principalId: principal.id,
          epoch: principal.epoch,
          ...(secret.scopes === null ? {} : { scopes: secret.scopes as readonly PatternActions[] }),
        },
      }
    },
  }
}

/** Users with a password of ours. An unknown name costs as much as a wrong password, so that time tells nothing. */
export function userAuthenticator(db: Database): Authenticator {
  const decoy = hashPassword('no account has this password')
  return {
    name: 'password',
    async check({ name, password }) {
      const principal = await findPrincipal(db, name)
      const hash = principal?.kind === 'user' ? principal.password_hash : null
      const isRight = await verifyPassword(password, hash ?? (await decoy))
      if (principal === undefined || hash === null) return undefined
      if (!isRight) return { refused: 'wrong password' }
      if (!principal.active) return { refused: 'disabled user', message: `${name} is disabled` }
      return {
        identity: { kind: 'user', name: principal.name, principalId: principal.id, epoch: principal.epoch },
      }
    },
  }
}
