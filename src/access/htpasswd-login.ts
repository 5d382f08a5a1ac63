import type { Proof } from '../auth/authority.ts'
import { hashesToCompare } from '../auth/htpasswd.ts'
import { RightPasswords } from '../auth/login-memory.ts'
import { siteOf } from '../auth/network.ts'
import { verifyPassword } from '../auth/passwords.ts'
import type { Database } from '../metadata/database.ts'
import { type PrincipalRow, findPrincipal } from '../metadata/principals.ts'
import type { Authenticator } from './authenticator.ts'
import { HTPASSWD, type HtpasswdUsers, proofOfHash } from './htpasswd-users.ts'
import { REMEMBER_MS } from './password-login.ts'

/**
 * Users of an htpasswd file. A name that is not in it, or belongs to somebody else here, costs as much as one that is,
 * whatever the cost of its hash; the chain goes on also after a wrong password, so that time tells nothing. A password
 * that another process knows to have changed is not right any more, although this one has not read the file since.
 */
export function htpasswdAuthenticator(db: Database, users: HtpasswdUsers): Authenticator {
  const right = new RightPasswords(REMEMBER_MS)
  const hashFor = (name: string, principal: PrincipalRow | undefined): string | undefined =>
    principal === undefined || principal.external_issuer === HTPASSWD ? users.file.hashes.get(name) : undefined
  const isOf = (principal: PrincipalRow | undefined, hash: string): principal is PrincipalRow =>
    principal?.external_issuer === HTPASSWD && principal.external_proof === proofOfHash(hash)

  /** The row of a user whose password was right for `hash`, where the rows know of no other. */
  const rowOf = async (name: string, hash: string, known: PrincipalRow | undefined) => {
    if (isOf(known, hash)) return known
    // The file may have been read a moment ago.
    await users.written()
    // A user who was deleted here and still stands in it comes back.
    if (known === undefined) await users.add(name, hash)
    const principal = await findPrincipal(db, name)
    return isOf(principal, hash) ? principal : undefined
  }

  return {
    name: 'htpasswd',
    async recall({ name, password }) {
      const principal = await findPrincipal(db, name)
      const hash = hashFor(name, principal)
      if (hash === undefined || !isOf(principal, hash) || !principal.active) return undefined
      return right.has(hash, password) ? proofOf(principal) : undefined
    },
    async check({ name, password }, { client }) {
      const known = await findPrincipal(db, name)
      const hash = hashFor(name, known)
      const [compared, ...decoys] = hashesToCompare(users.file, hash)
      const isRight = await verifyPassword(password, compared, siteOf(client), decoys)
      if (hash === undefined || !isRight) return undefined
      const principal = await rowOf(name, hash, known)
      if (principal === undefined) return { refused: 'another process has read another htpasswd file' }
      if (!principal.active) return { refused: 'disabled user', message: `${name} is disabled` }
      right.add(hash, password)
      return proofOf(principal)
    },
  }
}

function proofOf({ name, id, epoch }: PrincipalRow): Proof {
  return { identity: { kind: 'user', name, principalId: id, epoch } }
}
